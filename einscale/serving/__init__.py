"""What a request costs: prefill, decode with a cache, memory, batches that fit, and ways to serve."""

from einscale.serving.cache import fed_caches, kv_bytes, kv_bytes_per_token, tokens_kept
from einscale.serving.instance import make_instance
from einscale.serving.largest import most_requests, requests_fit
from einscale.serving.memory import largest_batch, serving_memory
from einscale.serving.requests import decode_report, most_sequences, prefill_report, request_report, sweep
from einscale.serving.step import Planner
from einscale.serving.structure import serving_program
from einscale.serving.values import (
    DecodeReport,
    Instance,
    KindStep,
    PrefillReport,
    RequestReport,
    StepReport,
    SweepRow,
)
from einscale.serving.ways import (
    DisaggregatedReport,
    SpeculativeReport,
    ahead_instance,
    cost_per_million_tokens,
    default_bandwidth,
    disaggregated_report,
    expected_tokens,
    speculative_report,
)

__all__ = [
    "DecodeReport",
    "DisaggregatedReport",
    "Instance",
    "KindStep",
    "Planner",
    "PrefillReport",
    "RequestReport",
    "SpeculativeReport",
    "StepReport",
    "SweepRow",
    "ahead_instance",
    "cost_per_million_tokens",
    "decode_report",
    "default_bandwidth",
    "disaggregated_report",
    "expected_tokens",
    "fed_caches",
    "kv_bytes",
    "kv_bytes_per_token",
    "largest_batch",
    "make_instance",
    "most_requests",
    "most_sequences",
    "prefill_report",
    "request_report",
    "requests_fit",
    "serving_memory",
    "serving_program",
    "speculative_report",
    "sweep",
    "tokens_kept",
]
