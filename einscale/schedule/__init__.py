"""Pipeline schedules: which device works on which microbatch when, what that leaves idle and what it keeps in memory.

`order` is the work of every device, `simulate` its event simulation, `run_schedule` the same at the cost of a few
microbatches, `pipeline_times` that of thousands of pipelines at once, `alive_forms` what their devices keep, whatever
the bytes; `bubble_seconds` and `in_flight` are the closed forms of the literature in their stated domains.
"""

from einscale.schedule.alive import AliveForm as AliveForm
from einscale.schedule.alive import HeldAtPeak as HeldAtPeak
from einscale.schedule.alive import alive_forms as alive_forms
from einscale.schedule.alive import most_alive as most_alive
from einscale.schedule.alive import peak_held as peak_held
from einscale.schedule.catalogue import SCHEDULES as SCHEDULES
from einscale.schedule.catalogue import check_schedule as check_schedule
from einscale.schedule.catalogue import find_schedule as find_schedule
from einscale.schedule.catalogue import placement as placement
from einscale.schedule.catalogue import schedule_names as schedule_names
from einscale.schedule.closed import bubble_seconds as bubble_seconds
from einscale.schedule.closed import in_closed_form as in_closed_form
from einscale.schedule.closed import in_flight as in_flight
from einscale.schedule.closed import makespan_seconds as makespan_seconds
from einscale.schedule.closed import outside_closed_form as outside_closed_form
from einscale.schedule.layers import layers_per_chunk as layers_per_chunk
from einscale.schedule.orders import order as order
from einscale.schedule.row import Schedule as Schedule
from einscale.schedule.steady import PipelineTimes as PipelineTimes
from einscale.schedule.steady import pipeline_times as pipeline_times
from einscale.schedule.steady import run_schedule as run_schedule
from einscale.schedule.tasks import InFlight as InFlight
from einscale.schedule.tasks import Task as Task
from einscale.schedule.text import LEGEND as LEGEND
from einscale.schedule.text import painted as painted
from einscale.schedule.text import symbol as symbol
from einscale.schedule.text import timeline_text as timeline_text
from einscale.schedule.timeline import CriticalTask as CriticalTask
from einscale.schedule.timeline import Timeline as Timeline
from einscale.schedule.timeline import critical_path as critical_path
from einscale.schedule.timeline import simulate as simulate
