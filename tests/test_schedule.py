from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einscale.errors import ScheduleError
from einscale.schedule import (
    SCHEDULES,
    InFlight,
    Task,
    bubble_seconds,
    check_schedule,
    critical_path,
    find_schedule,
    in_closed_form,
    in_flight,
    layers_per_chunk,
    makespan_seconds,
    order,
    outside_closed_form,
    peak_held,
    placement,
    run_schedule,
    schedule_names,
    simulate,
    steady,
    timeline_text,
)
from einscale.schedule.compiled import compile_order
from einscale.schedule.machine import Machine
from einscale.schedule.timeline import evaluate

NAMES = schedule_names()


def chunks_of(name: str, otherwise: int = 2) -> int:
    return find_schedule(name).chunks_fixed or otherwise


def is_legal(name: str, stages: int, microbatches: int, chunks: int) -> bool:
    try:
        check_schedule(name, stages, microbatches, chunks)
    except ScheduleError:
        return False
    return True


@st.composite
def pipelines(draw: st.DrawFn, most_stages: int = 6, most_rounds: int = 4) -> tuple[str, int, int, int]:
    """A schedule and numbers that it follows."""
    name = draw(st.sampled_from(NAMES))
    stages = draw(st.integers(1, most_stages))
    chunks = chunks_of(name, draw(st.integers(2, 4)))
    microbatches = draw(st.integers(1, most_rounds * stages))
    if name == "interleaved":
        microbatches = -(-microbatches // stages) * stages
    if name == "dualpipe":
        stages += stages % 2
        microbatches = 2 * draw(st.integers(stages, most_rounds * stages))
    if name == "dualpipev":
        microbatches += 2 * stages
    return name, stages, microbatches, chunks


@st.composite
def timed_pipelines(
    draw: st.DrawFn, most_rounds: int = 4
) -> tuple[tuple[str, int, int, int], tuple[Any, ...], dict[str, Any]]:
    """A pipeline, times of every chunk, and options of the simulation."""
    numbers = draw(pipelines(most_stages=5, most_rounds=most_rounds))
    count = numbers[1] * numbers[3]
    spread = draw(st.sampled_from((0, 1, 9)))  # equal stages, nearly equal ones, others
    base = draw(st.integers(1, 9))
    values = st.lists(st.integers(base, base + spread), min_size=count, max_size=count)
    forward, backward = draw(values), [base + time for time in draw(values)]
    weight = [min(time, draw(st.integers(0, 2 * base))) for time in backward]
    options = {
        "send": draw(st.sampled_from((0, 1, 7))),
        "blocking": draw(st.booleans()),
        "overlap": draw(st.sampled_from((0, Fraction(1, 3), 1))),
    }
    return numbers, (forward, backward, weight), options


# --- names


def test_names_and_aliases() -> None:
    assert NAMES == ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipev")
    assert find_schedule("1F1B").name == "1f1b"
    assert find_schedule("zbv").name == "zb-v"
    assert find_schedule("interleaved_1f1b").name == "interleaved"
    for schedule in SCHEDULES:
        assert {find_schedule(alias).name for alias in (schedule.name, *schedule.aliases)} == {schedule.name}


def test_an_unknown_name_is_an_error_with_a_near_miss() -> None:
    with pytest.raises(ScheduleError, match=r"unknown pipeline schedule `dualpip`[\s\S]*did you mean `dualpipe`\?"):
        find_schedule("dualpip")
    with pytest.raises(ScheduleError, match="known: gpipe, 1f1b, interleaved"):
        find_schedule("wavefront")


# --- numbers a schedule wants


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (("1f1b", 0, 4, 1), r"the number of stages must be a whole number, at least 1, not 0"),
        (("1f1b", 4, 0, 1), r"the number of microbatches must be .* not 0"),
        (("1f1b", 4, 4.0, 1), r"the number of microbatches must be .* not 4.0"),
        (("1f1b", 4, 4, True), r"the number of chunks a stage must be .* not True"),
        (("1f1b", 4, 8, 2), r"`1f1b` holds 1 chunk of the model a stage, not 2\s+expected 1 chunk, .* `interleaved`"),
        (("zb-v", 4, 8, 1), r"`zb-v` holds 2 chunks of the model a stage, not 1\s+expected 2 chunks, .* `1f1b`"),
        (("interleaved", 4, 8, 1), r"at least 2 chunks a stage, not 1\s+expected 2 chunks a stage, or .* `1f1b`"),
        (("interleaved", 4, 10, 2), r"groups of 4 stages, not 10\s+expected 8 or 12 microbatches, or 2 or 5 stages"),
        (("interleaved", 4, 3, 2), r"groups of 4 stages, not 3\s+expected 4 microbatches, or 3 stages"),
        (("interleaved", 4, 1, 2), r"groups of 4 stages, not 1\s+expected 4 microbatches$"),
        (("dualpipe", 5, 20, 1), r"`dualpipe` wants an even number of stages, not 5\s+expected 4 or 6"),
        (("dualpipe", 1, 20, 1), r"`dualpipe` wants an even number of stages, not 1\s+expected 2$"),
        (("dualpipe", 16, 20, 1), r"two microbatches a stage: 32, not 20\s+expected 32 .*, or at most 10 stages"),
        (("dualpipe", 4, 3, 1), r"two microbatches a stage: 8, not 3\s+expected 8 microbatches$"),
        (("dualpipe", 4, 9, 1), r"even number of microbatches, half from either end, not 9\s+expected 8 or 10"),
        (("dualpipev", 4, 7, 2), r"two microbatches a stage: 8, not 7\s+expected 8 microbatches, or at most 3 stages"),
        (("dualpipev", 4, 1, 2), r"two microbatches a stage: 8, not 1\s+expected 8 microbatches$"),
    ],
)
def test_illegal_numbers_name_the_nearest_legal_ones(numbers: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        check_schedule(*numbers)
    with pytest.raises(ScheduleError):
        order(*numbers)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_schedule(None), "a schedule is named by text, not by NoneType"),  # type: ignore[arg-type]
        (lambda: placement("1f1b", 1.5), "the number of stages must be a whole number, at least 1, not 1.5"),  # type: ignore[arg-type]
        (lambda: placement("1f1b", 10**30), "the number of stages is absurd"),
        (lambda: order("1f1b", 4, 10**9), "more tasks than can be listed\n  expected at most 2500000 microbatches"),
        (lambda: simulate(None, 1, 2), "NoneType is no order of tasks"),  # type: ignore[arg-type]
        (lambda: simulate((("F0",),), 1, 2), "tuple is no order of tasks"),  # type: ignore[arg-type]
        (lambda: run_schedule("1f1b", 4, 8, 1, "1", 2), "`forward`"),  # type: ignore[arg-type]
        (lambda: run_schedule("1f1b", 4, 8, 1, [None] * 4, 2), "`forward` of chunk 0 cannot take None seconds"),  # type: ignore[list-item]
        (lambda: run_schedule("1f1b", 4, 8, 1, 1, 2, send=None), "a hop cannot take None seconds"),  # type: ignore[arg-type]
        (lambda: peak_held("1f1b", 4, 8, 1, None), "a chunk cannot keep None"),  # type: ignore[arg-type]
        (lambda: peak_held("1f1b", 4, 8, 1, -1), "a chunk cannot keep -1"),
    ],
)
def test_what_is_no_schedule_number_or_time_is_refused_in_words(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        call()
    assert words in str(caught.value)


def test_the_numbers_named_are_legal() -> None:
    assert is_legal("interleaved", 4, 8, 2) and is_legal("interleaved", 5, 10, 2) and is_legal("interleaved", 2, 10, 2)
    assert is_legal("dualpipe", 10, 20, 1) and is_legal("dualpipe", 16, 32, 1) and is_legal("dualpipev", 3, 7, 2)


# --- orders


def words(name: str, stages: int, microbatches: int, chunks: int = 1) -> list[str]:
    """Task by task, upper case from the first chunk a device holds, lower case from its second."""
    lines = []
    for held, tasks in zip(placement(name, stages, chunks), order(name, stages, microbatches, chunks), strict=True):
        letters = [task.kind if task.chunk == held[0] else task.kind.lower() for task in tasks]
        lines.append(" ".join(f"{letter}{task.microbatch}" for letter, task in zip(letters, tasks, strict=True)))
    return lines


def test_orders_known_by_heart() -> None:
    assert words("gpipe", 2, 2) == ["F0 F1 B1 B0", "F0 F1 B1 B0"]
    assert words("1f1b", 2, 2) == ["F0 F1 B0 B1", "F0 B0 F1 B1"]
    assert words("1f1b", 3, 1) == ["F0 B0"] * 3
    assert words("1f1b", 3, 4) == ["F0 F1 F2 B0 F3 B1 B2 B3", "F0 F1 B0 F2 B1 F3 B2 B3", "F0 B0 F1 B1 F2 B2 F3 B3"]
    assert words("zb-h1", 2, 3) == ["F0 F1 B0 W0 F2 B1 W1 B2 W2", "F0 B0 F1 B1 W0 F2 B2 W1 W2"]
    assert words("zb-h2", 2, 3) == ["F0 F1 F2 B0 W0 B1 W1 B2 W2", "F0 B0 F1 B1 F2 B2 W0 W1 W2"]
    assert words("zb-v", 1, 1, 2) == ["F0 f0 b0 w0 B0 W0"]


def test_interleaved_order_of_two_stages() -> None:
    """Narayanan et al. 2021, section 2.2.2, on two devices: warm-up 2(p-1-i) + (v-1)p, microbatches in groups of p."""
    assert words("interleaved", 2, 4, 2) == [
        "F0 F1 f0 f1 F2 b0 F3 b1 f2 B0 f3 B1 b2 b3 B2 B3",
        "F0 F1 f0 b0 f1 b1 F2 B0 F3 B1 f2 b2 f3 b3 B2 B3",
    ]


def test_dualpipe_order_of_eight_stages() -> None:
    """DeepSeek-AI 2024, figure 5: 8 devices, 20 microbatches, 10 from either end."""
    first, *_, last = order("dualpipe", 8, 20)
    assert [task.kind for task in first[:9]] == ["F"] * 8 + ["B"]
    assert [(task.microbatch, task.chunk) for task in first[:8]] == [*((k, 0) for k in range(7)), (10, 7)]
    assert [(task.microbatch, task.chunk) for task in last[:8]] == [*((10 + k, 0) for k in range(7)), (0, 7)]
    assert sum(task.overlapped for task in first) == 2 * (10 - 8 + 1) + 3
    assert sum(task.kind == "W" for task in first) == 3 + 4  # three in the warm-up, four at the end


@given(pipelines())
def test_every_task_comes_once_on_the_device_that_holds_its_chunk(numbers: tuple[str, int, int, int]) -> None:
    name, stages, microbatches, chunks = numbers
    devices = order(*numbers)
    held = placement(name, stages, chunks)
    tasks = [task for device in devices for task in device]
    assert len({(task.kind, task.microbatch, task.chunk) for task in tasks}) == len(tasks)
    passes = {(microbatch, chunk) for microbatch in range(microbatches) for chunk in range(stages * chunks)}
    for kind in "FB":
        assert {(task.microbatch, task.chunk) for task in tasks if task.kind == kind} == passes
    weights = {(task.microbatch, task.chunk) for task in tasks if task.kind == "W"}
    if name.startswith("zb"):
        assert weights == passes
    else:
        assert weights <= passes and (find_schedule(name).splits_backward or not weights)
    for chunk_numbers, device in zip(held, devices, strict=True):
        assert {task.chunk for task in device} == set(chunk_numbers)
        for kind in "FW":  # microbatches of one end pass a chunk in order
            for chunk in chunk_numbers:
                turns = [task.microbatch for task in device if (task.kind, task.chunk) == (kind, chunk)]
                assert turns == sorted(turns)


@given(pipelines())
def test_no_device_waits_for_ever_and_tasks_keep_their_dependencies(numbers: tuple[str, int, int, int]) -> None:
    _, stages, _, chunks = numbers
    timeline = simulate(order(*numbers), 2, 5, 2, send=1)
    ends = {
        (task.kind, task.microbatch, task.chunk): (end, device)
        for device, tasks in enumerate(timeline.order)
        for task, end in zip(tasks, timeline.ends[device], strict=True)
    }
    for device, tasks in enumerate(timeline.order):
        for task, start in zip(tasks, timeline.starts[device], strict=True):
            before = []
            if task.kind == "F" and task.chunk:
                before.append(("F", task.microbatch, task.chunk - 1))
            if task.kind == "B":
                before.append(("F", task.microbatch, task.chunk))
                if task.chunk < stages * chunks - 1:
                    before.append(("B", task.microbatch, task.chunk + 1))
            if task.kind == "W":
                before.append(("B", task.microbatch, task.chunk))
            for key in before:
                end, other = ends[key]
                assert start >= end + (other != device)
        for (start, end), (later, _) in pairwise(
            sorted(set(zip(timeline.starts[device], timeline.ends[device], strict=True)))
        ):
            assert start < end <= later


# --- closed forms against the simulation

GRID_STAGES, GRID_MICROBATCHES = range(1, 17), range(1, 65)
TIMES = {  # (forward, backward, weight, overlap): F, B + W, W
    "gpipe": ((3, 7, 0, 0),),
    "1f1b": ((3, 7, 0, 0),),
    "interleaved": ((3, 7, 0, 0),),
    "zb-h1": ((1, 2, 1, 0), (2, 5, 2, 0)),
    "zb-h2": ((1, 2, 1, 0), (2, 5, 1, 0)),
    "zb-v": ((1, 2, 1, 0), (3, 9, 4, 0)),
    "dualpipe": ((1, 2, 1, 0), (1, 2, 1, 1), (2, 5, 2, Fraction(1, 2)), (5, 6, 4, 0), (3, 9, 1, 1)),
    "dualpipev": ((2, 4, 2, 1), (2, 5, 2, 1)),
}


def in_brief(stages: int, microbatches: int) -> bool:
    """A third of the grid: forms change where a pipeline is just full, twice or thrice; beyond, every seventh."""
    near = any(abs(microbatches - times * stages) <= 1 for times in (1, 2, 3))
    return near or microbatches <= 4 or (microbatches + stages) % 7 == 0


@pytest.mark.parametrize("brief", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["brief", "every one"])
@pytest.mark.parametrize("name", NAMES)
def test_closed_forms_equal_the_simulation(name: str, brief: bool) -> None:
    """All p <= 16, m <= 64 of the schedule's domain; interleaved with one of v = 2, 3, 5 and 8 for each p and m."""
    compared = 0
    for stages in GRID_STAGES:
        for microbatches in GRID_MICROBATCHES:
            if in_brief(stages, microbatches) != brief:  # together they are the whole grid
                continue
            chunks = chunks_of(name, (2, 3, 5, 8)[(stages + microbatches // stages) % 4])
            if not is_legal(name, stages, microbatches, chunks):
                continue
            compiled = compile_order(order(name, stages, microbatches, chunks))
            numbers = (name, stages, microbatches, chunks)
            assert compiled.in_flight == tuple(in_flight(*numbers, stage) for stage in range(stages))
            for forward, backward, weight, overlap in TIMES[name]:
                if not in_closed_form(*numbers, forward, backward, weight):
                    continue
                timeline = evaluate(compiled, forward, backward, weight, overlap=overlap)
                compared += 1
                expected = makespan_seconds(*numbers, forward, backward, weight, overlap=overlap)
                assert timeline.makespan == expected, (numbers, forward, backward, weight, overlap)
                bubble = bubble_seconds(*numbers, forward, backward, weight, overlap=overlap)
                assert max(timeline.bubble) == bubble
                assert name.startswith("dual") or min(timeline.bubble) == bubble
                if in_closed_form(*numbers, forward, backward, weight, barrier=False):
                    span = makespan_seconds(*numbers, forward, backward, weight, overlap=overlap, barrier=False)
                    assert timeline.span == span
    assert compared > (40 if brief else 80)


@pytest.mark.parametrize("chunks", range(2, 9))
def test_interleaved_closed_form_for_every_number_of_chunks(chunks: int) -> None:
    for stages, microbatches in ((1, 5), (2, 2), (2, 64), (3, 9), (5, 20), (8, 16), (16, 16)):
        timeline = simulate(order("interleaved", stages, microbatches, chunks), 3, 7)
        assert timeline.makespan == makespan_seconds("interleaved", stages, microbatches, chunks, 3, 7)
        assert timeline.in_flight == tuple(
            in_flight("interleaved", stages, microbatches, chunks, stage) for stage in range(stages)
        )


@settings(max_examples=80, deadline=None)
@given(pipelines(most_stages=8), st.fractions(0, 20), st.fractions(0, 20), st.fractions(0, 20), st.fractions(0, 1))
def test_closed_forms_hold_for_any_times(
    numbers: tuple[str, int, int, int], forward: Fraction, inputs: Fraction, weight: Fraction, overlap: Fraction
) -> None:
    times = (forward, inputs + weight, weight)
    timeline = simulate(order(*numbers), *times, overlap=overlap)
    if in_closed_form(*numbers, *times):
        assert timeline.makespan == makespan_seconds(*numbers, *times, overlap=overlap)
        assert max(timeline.bubble) == bubble_seconds(*numbers, *times, overlap=overlap)
    if in_closed_form(*numbers, *times, barrier=False):
        assert timeline.span == makespan_seconds(*numbers, *times, overlap=overlap, barrier=False)


def test_published_forms() -> None:
    """The forms as their papers print them: for F = B = W Qi et al., for F = B >= W DeepSeek-AI."""
    for stages in (2, 4, 8, 16):
        for one in (1, 3):
            times = (one, 2 * one, one)
            assert bubble_seconds("1f1b", stages, 64, 1, *times) == (stages - 1) * 3 * one
            assert bubble_seconds("zb-h1", stages, 64, 1, *times, barrier=False) == (stages - 1) * one
            assert bubble_seconds("zb-h2", stages, 64, 1, *times, barrier=False) == 0
            assert bubble_seconds("zb-v", stages, 64, 2, *times, barrier=False) == 0
        for forward, weight, overlap in ((2, 2, 0), (3, 2, 1), (5, 1, 1)):
            backward = forward + weight
            block = forward + backward - overlap * forward
            published = (stages // 2 - 1) * (block + backward - 3 * weight)
            assert bubble_seconds("dualpipe", stages, 64, 1, forward, backward, weight, overlap=overlap) == published


def test_published_memory() -> None:
    """Korthikanti et al. 2022: interleaving keeps 1 + (p-1)/(pv) times the activations of the first stage."""
    for stages, chunks in ((4, 2), (8, 3), (16, 8)):
        stage_activations = Fraction(in_flight("interleaved", stages, 8 * stages, chunks, 0).until_backward, chunks)
        assert stage_activations == stages * (1 + Fraction(stages - 1, stages * chunks))
    assert in_flight("zb-h2", 8, 64, 1, 0) == InFlight(15, 15)  # 2p - 1
    assert in_flight("dualpipe", 8, 20, 1, 3).until_weight == 9  # PP + 1


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        (("1f1b", 4, 8, 1, [1, 1, 1, 2], 2), {}, "the chunks do not all take equally long"),
        (("1f1b", 4, 8, 1, 1, 2), {"send": 1}, "hops take time"),
        (("zb-h1", 4, 3, 1, 1, 2, 1), {}, "zb-h1 has a closed form from 4 microbatches on, one a stage"),
        (("zb-h2", 4, 6, 1, 1, 2, 1), {}, "zb-h2 has a closed form from 7 microbatches on, two a stage but one"),
        (("zb-v", 4, 8, 2, 3, 3, 1), {}, "a forward pass takes no longer than the gradients of inputs"),
        (("zb-v", 4, 8, 2, 1, 3, 2), {"barrier": False}, "the gradients of weights take no longer than of inputs"),
    ],
)
def test_outside_the_domain_of_a_closed_form(arguments: Any, options: Any, reason: str) -> None:
    assert reason in str(outside_closed_form(*arguments, **options))
    assert not in_closed_form(*arguments, **options)


def test_no_closed_form_is_an_error_that_names_the_simulation() -> None:
    with pytest.raises(ScheduleError, match=r"no closed form: zb-h1 .*\s+expected `run_schedule`, which simulates it"):
        bubble_seconds("zb-h1", 4, 3, 1, 1, 2, 1)
    assert run_schedule("zb-h1", 4, 3, 1, 1, 2, 1).makespan > 9
    with pytest.raises(ScheduleError, match=r"there is no stage 4 among 4\s+expected 0 to 3"):
        in_flight("1f1b", 4, 8, 1, 4)


# --- the simulation


def test_uneven_chunks_are_priced_by_their_own_times() -> None:
    """The last stage, twice as slow, paces the pipeline; the others idle."""
    timeline = simulate(order("1f1b", 3, 9), [1, 1, 2], [2, 2, 4])
    assert timeline.makespan == 2 + 9 * 6 + 4
    assert timeline.busy == (27, 27, 54)
    assert timeline.bubble == (33, 33, 6)
    assert timeline.bubble_fraction[2] == pytest.approx(0.1)


def test_hops_are_waited_for_by_the_receiver_and_by_a_blocked_sender() -> None:
    passes = order("gpipe", 2, 3)
    assert simulate(passes, 4, 4).makespan == 32
    assert simulate(passes, 4, 4, send=1).makespan == 34
    assert simulate(passes, 4, 4, send=1, blocking=True).makespan == 34 + 2 + 2
    # chunks 1 and 2 of a V lie on one device: no hop between them
    assert simulate(order("zb-v", 2, 1, 2), 1, 2, 0, send=10).makespan == 12 + 4 * 10


def test_a_block_takes_the_sum_or_the_longer_of_its_passes() -> None:
    passes = order("dualpipe", 2, 20)
    apart, together = simulate(passes, 3, 6, 2), simulate(passes, 3, 6, 2, overlap=1)
    blocks = 20 - 2 - 1
    assert (apart.makespan, together.makespan) == (180, 180 - 3 * blocks)


def test_floats_stay_near_the_exact_times() -> None:
    exact = simulate(order("zb-v", 4, 16, 2), Fraction(1, 10), Fraction(3, 10), Fraction(1, 10), send=Fraction(1, 100))
    assert simulate(order("zb-v", 4, 16, 2), 0.1, 0.3, 0.1, send=0.01).makespan == pytest.approx(float(exact.makespan))


@given(timed_pipelines())
def test_the_critical_path_is_a_chain_as_long_as_the_step(case: Any) -> None:
    numbers, times, options = case
    timeline = simulate(order(*numbers), *times, **options)
    path = critical_path(timeline)
    assert path[0].start == 0 and path[-1].end == timeline.makespan
    for before, after in pairwise(path):
        gap = after.start - before.end
        assert gap == options["send"] if after.hop else gap in (0, options["send"] * options["blocking"])
        assert (before.device != after.device) == after.hop


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([[("F", 0, 0), ("F", 0, 0)]], r"F of microbatch 0 in chunk 0 comes twice"),
        ([[("F", 0, 1)]], r"F of microbatch 0 in chunk 1 waits for F of microbatch 0 in chunk 0, which no device runs"),
        ([[("B", 0, 0), ("F", 0, 0)]], r"B of microbatch 0 in chunk 0 comes before F of microbatch 0 in chunk 0"),
        (
            [[("F", 0, 0, True)]],
            r"no backward pass follows F of microbatch 0 in chunk 0, which shares a block with one",
        ),
        (
            [
                [("F", 0, 0), ("B", 0, 0), ("F", 1, 0), ("B", 1, 0)],
                [("F", 1, 1), ("B", 1, 1), ("F", 0, 1), ("B", 0, 1)],
            ],
            r"the devices wait for each other: B of microbatch 0 in chunk 0 never begins",
        ),
    ],
)
def test_orders_that_cannot_run(tasks: Any, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        simulate(tuple(tuple(Task(*task) for task in device) for device in tasks), 1, 2)


@pytest.mark.parametrize(
    ("times", "options", "words"),
    [
        ((-1, 2), {}, r"`forward` of chunk 0 cannot take -1 seconds"),
        ((1, float("nan")), {}, r"`backward` of chunk 0 cannot take nan seconds"),
        (
            (1, 2, 3),
            {},
            r"weights take 3 of 2 seconds of the backward pass of chunk 0\s+expected `backward` to be the whole",
        ),
        (([1, 1, 1], 2), {}, r"`forward` has 3 values for 2 chunks of the model"),
        ((1, 2), {"send": -1}, r"a hop cannot take -1 seconds"),
        ((1, 2), {"overlap": 2}, r"`overlap` is a share of the shorter pass, from 0 to 1, not 2"),
    ],
)
def test_times_that_cannot_be(times: Any, options: Any, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        simulate(order("1f1b", 2, 2), *times, **options)
    with pytest.raises(ScheduleError, match=words):
        run_schedule("1f1b", 2, 100, 1, *times, **options)


# --- many microbatches


def summary(timeline: Any) -> tuple[Any, ...]:
    return (timeline.makespan, timeline.span, timeline.busy, timeline.in_flight)


@settings(max_examples=100, deadline=None)
@given(timed_pipelines(most_rounds=12))
def test_a_steady_state_extended_is_the_whole_simulation(case: Any) -> None:
    numbers, times, options = case
    timeline = run_schedule(*numbers, *times, **options)
    assert summary(timeline) == summary(simulate(order(*numbers), *times, **options))
    assert timeline.exact


@pytest.mark.parametrize("name", NAMES)
def test_an_extended_order_repeats_its_steady_state(name: str) -> None:
    """What `run_schedule` leaves out is there: a longer order is a shorter one with one more period in the middle."""
    stages, chunks = 4, chunks_of(name, 3)
    repeats = {"interleaved": 4, "dualpipe": 2}.get(name, 1)
    shift = 1 if name == "dualpipe" else repeats
    shorter, longer = order(name, stages, 32, chunks), order(name, stages, 32 + repeats, chunks)
    late = 16 if name == "dualpipe" else 32

    def moved(task: Task) -> Task:
        other_end = 1 if name == "dualpipe" and task.microbatch >= late else 0  # its first microbatch is one later
        return Task(task.kind, task.microbatch + shift + other_end, task.chunk, task.overlapped)

    if name == "gpipe":  # which grows at both ends
        return
    for short, long in zip(shorter, longer, strict=True):
        cut = len(short) // 2
        assert long[len(long) - (len(short) - cut) :] == tuple(moved(task) for task in short[cut:])
        head = tuple((task.kind, task.chunk) for task in short[:cut])
        assert tuple((task.kind, task.chunk) for task in long[:cut]) == head


@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_microbatches_are_not_simulated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    play = Machine.play
    monkeypatch.setattr(
        Machine, "play", lambda machine, events, began=None: (played.extend(events), play(machine, events, began))
    )
    chunks = chunks_of(name, 4)
    forward = [0.002] * (8 * chunks - 1) + [0.003]
    timeline = run_schedule(name, 8, 8000, chunks, forward, 0.004, 0.001, send=0.0001)
    assert 0 < len(played) < 10_000
    assert timeline.makespan >= max(timeline.busy) >= 8000 * 0.006
    assert timeline.makespan < max(timeline.busy) * 1.2 and timeline.exact and not timeline.order
    assert timeline.in_flight[0] == in_flight(name, 8, 8000, chunks, 0)


def test_without_a_rhythm_the_pace_is_kept_up_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "LARGEST", 4 * 100)
    forward = [1000, 1001, 1000, 1002]  # so near to each other that the first hundred microbatches show no rhythm
    timeline = run_schedule("zb-h2", 4, 2000, 1, forward, 2000, 999)
    exact = simulate(order("zb-h2", 4, 2000), forward, 2000, 999)
    assert not timeline.exact
    assert timeline.makespan == pytest.approx(exact.makespan, rel=1e-3)
    with pytest.raises(ScheduleError, match=r"`1f1b` is too large to simulate: 44 microbatches through 11 chunks"):
        run_schedule("1f1b", 11, 1000, 1, 1, 2)


def test_timelines_that_were_extended_do_not_know_their_tasks() -> None:
    timeline = run_schedule("1f1b", 4, 1000, 1, 1, 2)
    for ask in (critical_path, timeline_text):
        with pytest.raises(ScheduleError, match="does not know its tasks"):
            ask(timeline)


# --- what is kept


@given(pipelines(most_rounds=10), st.integers(0, 5))
def test_what_is_kept_follows_from_the_order(numbers: tuple[str, int, int, int], part: int) -> None:
    name, stages, _, chunks = numbers
    amounts = [3 + chunk % 4 for chunk in range(stages * chunks)]
    parts = [min(part, amount) for amount in amounts]
    peaks = peak_held(*numbers, amounts, parts)
    for device, tasks in enumerate(order(*numbers)):
        split = {(task.microbatch, task.chunk) for task in tasks if task.kind == "W"}
        kept = most = 0
        for task in tasks:
            amount, rest = amounts[task.chunk], parts[task.chunk]
            apart = (task.microbatch, task.chunk) in split
            kept += {"F": amount, "B": (rest if apart else 0) - amount, "W": -rest}[task.kind]
            most = max(most, kept)
        assert kept == 0
        assert peaks[device].amount == most
        told = sum(
            amounts[chunk] * backward + parts[chunk] * weight for chunk, backward, weight in peaks[device].chunks
        )
        assert told == most
    ones = peak_held(*numbers, 1)
    assert [held.amount for held in ones] == [in_flight(*numbers, stage).until_weight for stage in range(stages)]
    assert name != "1f1b" or ones[0].chunks[0][1] == ones[0].amount


def test_kept_by_millions_of_microbatches() -> None:
    assert peak_held("gpipe", 4, 10**6, 1, [5, 4, 4, 6])[3].amount == 6 * 10**6
    assert peak_held("interleaved", 4, 4 * 10**6, 2, 1)[0].amount == 11


# --- blocks of the model


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((32, 4), (8, 8, 8, 8)),
        ((30, 4), (7, 8, 8, 7)),
        ((31, 4), (8, 8, 8, 7)),
        ((61, 16), (3, *(3,), *(4,) * 13, 3)),
        ((80, 4, 5), (4,) * 20),
        ((10, 2, 2), (2, 3, 3, 2)),
        ((5, 1), (5,)),
        ((61, 8, 1, 6, 7), (6, 8, 8, 8, 8, 8, 8, 7)),
        ((7, 3, 1, 0), (0, 4, 3)),
        ((7, 3, 1, None, 0), (3, 4, 0)),
        ((7, 2, 1, 3, 4), (3, 4)),
    ],
)
def test_blocks_are_dealt_out(arguments: tuple[Any, ...], expected: tuple[int, ...]) -> None:
    assert layers_per_chunk(*arguments) == expected


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 60))
def test_blocks_differ_by_one_at_most(stages: int, chunks: int, more: int) -> None:
    layers = stages * chunks + more
    dealt = layers_per_chunk(layers, stages, chunks)
    assert sum(dealt) == layers and len(dealt) == stages * chunks
    assert max(dealt) - min(dealt) <= 1
    assert dealt[-1] == min(dealt)
    assert dealt[0] == min(dealt) or all(blocks == max(dealt) for blocks in dealt[:-1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((6, 8), r"8 stages want at least 8 blocks, the model has 6\s+expected at most 6 stages$"),
        (
            (12, 8, 2),
            r"8 stages of 2 chunks want .* 16 blocks, .* 12\s+expected at most 6 stages of 2 .*, or 1 chunk a stage",
        ),
        (
            (20, 4, 8),
            r"want at least 32 blocks, the model has 20\s+expected at most 2 stages of 8 .*, or at most 5 chunks",
        ),
        (
            (1, 4, 2),
            r"4 stages of 2 chunks want at least 8 blocks, the model has 1\s+expected at most 1 stages of 1 chunk",
        ),
        (
            (8, 4, 1, 4, 3),
            r"7 of 8 blocks in .* leave 1 for the other 2\s+expected at most 6 in the first and last together",
        ),
        ((8, 4, 1, 9), r"9 of 8 blocks in .* leave -1 for the other 3\s+expected at most 5 in the first"),
        ((8, 2, 1, 3, 4), r"the only ones and hold 3 \+ 4 of 8 blocks\s+expected last = 5 or first = 4"),
        ((8, 1, 1, 3), r"the only chunk holds all 8 blocks, its `first` cannot be 3\s+expected 8"),
        ((8, 2, 1, -1), r"the blocks of the first chunk must be a whole number, at least 0, not -1"),
        ((0, 2), r"the number of blocks must be a whole number, at least 1, not 0"),
    ],
)
def test_blocks_that_cannot_be_dealt_out(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        layers_per_chunk(*arguments)


# --- text


def test_a_timeline_as_text() -> None:
    text = timeline_text(simulate(order("zb-h1", 2, 3), 1, 2, 1), width=30)
    assert text.splitlines() == [
        "0 |0011..aa++22bb++cc++",
        "1 |..00aa11bb++22cc++++",
        "0-9 forward, a-j backward of microbatch 0-9 (last digit); + gradients of weights; . idle",
    ]


@settings(deadline=None)
@given(timed_pipelines(), st.integers(20, 200))
def test_rows_fit_and_busy_devices_have_no_dots(case: Any, width: int) -> None:
    numbers, times, options = case
    *rows, _ = timeline_text(simulate(order(*numbers), *times, **options), width).splitlines()
    assert len(rows) == numbers[1]
    assert len({len(row) for row in rows}) == 1 and len(rows[0]) <= width


def test_a_timeline_needs_room() -> None:
    with pytest.raises(ScheduleError, match=r"9 columns are too few for a timeline\s+expected at least 11"):
        timeline_text(simulate(order("1f1b", 2, 2), 1, 2), width=9)
    assert timeline_text(simulate(order("1f1b", 2, 2), 0, 0)).startswith("0 |\n1 |\n")
