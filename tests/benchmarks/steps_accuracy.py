"""Predicted against measured training steps: median error of every published source, and the mean of these medians.

    python tests/benchmarks/steps_accuracy.py [--group NAME] [--limit N] [--rows]

Reads tests/data/steps.jsonl (measured steps; tests/data/steps.md says where each group comes from). Every row becomes
a request for `train_report` with the system, mesh, batch and software stack it states, once by the roofline
(efficiency off) and once by what the chip's kernels reach (on). No constant is set by these rows here: what the chips'
descriptions say is all there is. A row that cannot be expressed is counted, with the reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from einscale.efficiency import Execution
from einscale.errors import EinscaleError
from einscale.hardware import System, load_system
from einscale.models import Model, layer_kinds, read_config
from einscale.precision import Precision, parse_precision
from einscale.request.training import TrainRequest, train_setup
from einscale.strategy import Strategy, load_strategy, with_zero
from einscale.strategy.values import Rule
from einscale.training import TrainReport, TrainSetup, train_report

DATA = Path(__file__).parent.parent / "data" / "steps.jsonl"

FUSED = {"megatron-fused", "te-fused", "compiled", "xla"}
"""Software in which neighbouring elementwise operations are one kernel."""

COMPILED = {"compiled", "xla"}
"""Software whose host is ahead of the device."""

PYTORCH = {"eager", "compiled"}
"""Software whose fused attention is PyTorch's or FlashAttention's own, not NVIDIA's Transformer Engine."""

GPUS_A_NODE = 8


def model_of(row: dict[str, Any]) -> Model:
    """The model of a row: gated MLPs as Llama, others as GPT-2, heads of the stated size."""
    facts = row["model"]
    vocab = facts["vocab"]
    if row.get("vocab_padded_to") == "multiple of 128*tp":
        unit = 128 * row["tp"]
        vocab = -(-vocab // unit) * unit
    elif "vocab_padded_to" in row:
        raise EinscaleError(f"vocabulary padded to {row['vocab_padded_to']}")
    rate = 0.1 if row["stack"]["dropout"] else 0.0
    if facts["mlp"] == "swiglu":
        data: dict[str, Any] = {
            "model_type": "llama",
            "hidden_size": facts["hidden"],
            "num_hidden_layers": facts["layers"],
            "num_attention_heads": facts["heads"],
            "num_key_value_heads": facts["kv_heads"],
            "head_dim": facts["head_dim"],
            "intermediate_size": facts["d_ff"],
            "vocab_size": vocab,
            "max_position_embeddings": row["seq_len"],
            "tie_word_embeddings": facts["tied_embeddings"],
            "torch_dtype": "bfloat16",
        }
        config = read_config(data, row["id"])[0]
    else:
        data = {
            "model_type": "gpt2",
            "n_embd": facts["hidden"],
            "n_layer": facts["layers"],
            "n_head": 1,
            "n_inner": facts["d_ff"],
            "vocab_size": vocab,
            "n_positions": row["seq_len"],
            "activation_function": "relu" if facts["mlp"] == "relu" else "gelu_new",
            "attn_pdrop": rate,
            "resid_pdrop": rate,
            "embd_pdrop": rate,
            "tie_word_embeddings": facts["tied_embeddings"],
            "torch_dtype": "bfloat16",
        }
        config = replace(
            read_config(data, row["id"])[0],
            heads=facts["heads"],
            kv_heads=facts["kv_heads"],
            head_dim=facts["head_dim"],
            score_factor=facts["head_dim"] ** -0.5,
        )
    return Model(row["id"], layer_kinds(config), row["group"], config)


def system_of(row: dict[str, Any]) -> System:
    """The system of a row, its slowest level at the bandwidth of the row's cluster where that is stated."""
    system = load_system(row["hardware"])
    per_node = row.get("network_gb_per_s_per_node")
    if per_node is None:
        return system
    *fast, slow = system.levels
    link = replace(slow.bandwidth, value=per_node / GPUS_A_NODE, unit="GB/s", attainable=None)
    return replace(system, levels=(*fast, replace(slow, bandwidth=link)))


def mesh_of(row: dict[str, Any]) -> str:
    """Stages outermost, then slices and replicas, then sequence parts, then tensor-parallel parts."""
    slices = row.get("dcn_dp") or 1
    axes = [("pipe", row["pp"]), ("pod", slices), ("data", row["dp"] // slices), ("context", row["cp"])]
    text = ",".join(f"{name}={size}" for name, size in axes if size > 1 or name == "data")
    return f"{text},model={row['tp']}" if row["tp"] > 1 else text


def strategy_of(row: dict[str, Any]) -> Strategy:
    """Megatron, with the sequence divided where the row says so, ZeRO, pipeline, recomputation and overlap as stated.

    Selective recomputation is the attention core in Megatron, every second matrix product in TorchTitan.
    """
    slices = (row.get("dcn_dp") or 1) > 1
    if row["cp"] > 1:
        strategy = load_strategy("megatron-sp+context")
    elif row["tp"] == 1:
        strategy = load_strategy("dp")
    else:
        strategy = load_strategy("megatron-sp" if row["sequence_parallel"] else "megatron")
    if slices:
        strategy = load_strategy("hsdp")
        if row["tp"] > 1:
            raise EinscaleError("slices and tensor parallelism at once")
    elif row["zero_stage"] and row["dp"] > 1:
        strategy = with_zero(strategy, row["zero_stage"])
    rules = (Rule("layer", ("pipe",)), *strategy.compute) if row["pp"] > 1 else strategy.compute
    stack = row["stack"]
    flash = stack["attention"] == "flash"
    every_second = "alternate" if stack["elementwise"] == "compiled" else "alternate-eager"
    selective = every_second if flash else "attention"
    recompute = {"none": (), "full": ("full",), "selective": (selective,)}[row["recompute"]]
    overlap = ("parameters", "gradients") if stack["dp_overlap"] else ()
    if stack["tp_overlap"]:
        overlap += ("activations",)
    policy = replace(strategy.policy, fuse=("attention",) if flash else (), recompute=recompute, overlap=overlap)
    return replace(strategy, compute=rules, policy=policy)


def precision_of(row: dict[str, Any]) -> Precision:
    """The preset of the row's compute type, gradients as wide as the row says; fp32 at rest under ZeRO-3."""
    name, wide = row["precision"], row["stack"]["grad_bytes"] == 4
    narrow = "fp16" if name == "fp16" else "bf16"
    gradients = "fp32" if wide else narrow
    if row["zero_stage"] == 3:
        base = parse_precision("mixed")
        compute = name if name not in ("bf16", "fp16") else narrow
        return replace(base, compute=compute, communication="" if wide else narrow)
    return replace(parse_precision(name), gradients=gradients)


def setup_of(row: dict[str, Any], *, efficiency: bool = True) -> TrainSetup:
    """The request that a row describes.

    Raises:
        EinscaleError: it cannot be expressed.
    """
    piped = {"schedule": "interleaved" if row["vp"] > 1 else "1f1b", "chunks": row["vp"]} if row["pp"] > 1 else {}
    request = TrainRequest(
        mesh=mesh_of(row),
        strategy=strategy_of(row),
        hardware=system_of(row),
        batch=row["global_batch"],
        sequence=row["seq_len"],
        microbatch=row["micro_batch"],
        precision=precision_of(row),
        attention="full",
        overhead=0,
        execution=execution_of(row) if efficiency else "roofline",
        loss=loss_of(row),
        **piped,
    )
    return train_setup(model_of(row), request)[0]


def loss_of(row: dict[str, Any]) -> str:
    """The form of the loss: one kernel where the row says so, folded into the compiled step by XLA, else op by op."""
    stack = row["stack"]
    if stack["cross_entropy_fused"]:
        return "fused"
    return "compiled" if stack["elementwise"] == "xla" else "eager"


def execution_of(row: dict[str, Any]) -> Execution:
    """How the row's software runs local work."""
    software = row["stack"]["elementwise"]
    return Execution(
        launch="compiled" if software in COMPILED else "eager",
        elementwise="fused" if software in FUSED else "eager",
        attention="flash2" if software in PYTORCH else "vendor",
    )


def predicted(row: dict[str, Any], *, efficiency: bool) -> TrainReport:
    """The report of a row's step."""
    return train_report(setup_of(row, efficiency=efficiency))


def rows(group: str = "", limit: int = 0) -> Iterable[dict[str, Any]]:
    """Measured steps, of one group if named, at most so many of each."""
    seen: Counter[str] = Counter()
    for line in DATA.read_text("utf-8").splitlines():
        row = json.loads(line)
        seen[row["group"]] += 1
        if group in ("", row["group"]) and (not limit or seen[row["group"]] <= limit):
            yield row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="", help="one source only")
    parser.add_argument("--limit", type=int, default=0, help="at most so many rows of each")
    parser.add_argument("--rows", action="store_true", help="print every row with its parts")
    options = parser.parse_args()
    errors: dict[bool, dict[str, list[float]]] = {False: defaultdict(list), True: defaultdict(list)}
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows(options.group, options.limit):
        for efficiency in (False, True):
            try:
                report = predicted(row, efficiency=efficiency)
            except EinscaleError as error:
                if efficiency:
                    refused[row["group"]][str(error).splitlines()[0][:110]] += 1
                continue
            errors[efficiency][row["group"]].append(report.step_seconds / row["step_time_s"] - 1)
            if options.rows and efficiency:
                parts: dict[str, float] = defaultdict(float)
                for spent in report.spent:
                    parts[f"{spent.what}{'@' + spent.axis if spent.axis else ''}"] += spent.seconds
                shown = " ".join(f"{what}={part:.3f}" for what, part in parts.items() if part > 1e-4)
                print(
                    f"{row['id']}: {report.step_seconds:.3f}/{row['step_time_s']:.3f} s "
                    f"{100 * errors[True][row['group']][-1]:+.1f} % | {shown}"
                )
    print(f"{'group':24} {'rows':>5} {'off':>8} {'(signed)':>9} {'on':>8} {'(signed)':>9}")
    means: dict[bool, list[float]] = {False: [], True: []}
    for group in sorted(errors[True]):
        cells = []
        for efficiency in (False, True):
            found = errors[efficiency][group]
            middle = statistics.median(map(abs, found))
            means[efficiency].append(middle)
            cells.append(f"{100 * middle:7.1f}% {100 * statistics.median(found):+8.1f}%")
        print(f"{group:24} {len(errors[True][group]):5} {' '.join(cells)}")
    for efficiency, found in means.items():
        print(
            f"mean of group medians, efficiency {'on' if efficiency else 'off'}: {100 * statistics.mean(found):.1f} %"
        )
    for group, reasons in refused.items():
        for reason, count in reasons.items():
            print(f"not expressed: {group}: {count} rows: {reason}")


if __name__ == "__main__":
    main()
