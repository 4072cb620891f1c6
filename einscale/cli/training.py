"""Options of a training step: the groups that `train`, `layer` and `compare` take alike."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from einscale.cli import complete
from einscale.cli.groups import Options
from einscale.cli.options import Batch, Overhead, PrecisionName, Sequence, count, joined, number


class Pipeline(Options, frozen=True, kw_only=True):
    """The batch, and how it runs through the stages."""

    batch: Batch = None
    sequence: Sequence = None
    microbatch: Annotated[
        str | None, typer.Option("--microbatch", metavar="INT", help="Sequences a replica works on at a time; else 1.")
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            "--schedule",
            metavar="NAME",
            help="gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, dualpipe or dualpipev, for a mesh with an axis pipe.",
            autocompletion=complete.schedules,
        ),
    ] = None
    chunks: Annotated[
        str | None,
        typer.Option("--chunks", metavar="INT", help="Model chunks on each stage (virtual stages)."),
    ] = None
    first_layers: Annotated[
        str | None,
        typer.Option("--first-layers", metavar="INT", help="Blocks of the first chunk, if not even."),
    ] = None
    last_layers: Annotated[
        str | None,
        typer.Option("--last-layers", metavar="INT", help="Blocks of the last chunk, if not even."),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.train_step` calls these."""
        return {
            "batch": number(self.batch, "batch"),
            "sequence": number(self.sequence, "sequence"),
            "microbatch": number(self.microbatch, "microbatch"),
            "schedule": self.schedule,
            "chunks": number(self.chunks, "number of chunks"),
            "first_layers": count(self.first_layers, "number of layers"),
            "last_layers": count(self.last_layers, "number of layers"),
        }


class StateOptions(Options, frozen=True, kw_only=True):
    """What is kept, in which element types, where, and what is hidden or computed again."""

    precision: PrecisionName = "bf16"
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            metavar="NAME",
            help="adamw, adam, adam8bit, adafactor, muon, sgd, ...",
            autocompletion=complete.optimizers,
        ),
    ] = "adamw"
    zero: Annotated[
        str | None,
        typer.Option(
            "--zero",
            metavar="0|1|2|3",
            help="Divide optimizer state (1), gradients (2), parameters (3) over data.",
            autocompletion=complete.words("0", "1", "2", "3"),
        ),
    ] = None
    recompute: Annotated[
        list[str] | None,
        typer.Option(
            "--recompute",
            metavar="GROUP,...",
            help="none, selective (attention), full, alternate, or groups, sections, results.",
            autocompletion=complete.words("none", "selective", "full", "alternate", several=True),
        ),
    ] = None
    overlap: Annotated[
        list[str] | None,
        typer.Option(
            "--overlap",
            metavar="KIND,...",
            help="Collectives that are hidden: parameters, gradients, activations, routed.",
            autocompletion=complete.overlaps,
        ),
    ] = None
    offload_optimizer: Annotated[
        bool, typer.Option("--offload-optimizer", help="Optimizer state in the host's memory, updated there.")
    ] = False
    offload_activations: Annotated[
        float,
        typer.Option("--offload-activations", metavar="SHARE", help="Share of saved activations on the host, 0 to 1."),
    ] = 0.0
    attention: Annotated[
        str,
        typer.Option(
            "--attention",
            metavar="causal|full",
            help="Attention in model FLOPs: half its square, or all of it.",
            autocompletion=complete.words("causal", "full"),
        ),
    ] = "causal"
    overhead: Overhead = None
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="How the loss runs: fused (one kernel, fp32 logits), compiled (16 bits) or eager.",
            autocompletion=complete.losses,
        ),
    ] = "fused"
    capacity: Annotated[
        float,
        typer.Option(
            "--capacity", metavar="FACTOR", help="Rows each expert has room for, in even shares; 1 is dropless."
        ),
    ] = 1.0
    execution: Annotated[
        str,
        typer.Option(
            "--execution",
            metavar="NAME",
            help="How local work runs: eager, fused (neighbouring maps are one kernel), compiled, or roofline.",
            autocompletion=complete.words("eager", "fused", "compiled", "roofline"),
        ),
    ] = "fused"

    def arguments(self) -> dict[str, Any]:
        """What `einscale.train_step` calls these."""
        from einscale.price.memory import FRAMEWORK

        overhead = count(self.overhead, "overhead")
        return {
            "precision": self.precision,
            "optimizer": self.optimizer,
            "zero": count(self.zero, "ZeRO stage"),
            "recompute": joined(self.recompute),
            "overlap": joined(self.overlap),
            "offload_optimizer": self.offload_optimizer,
            "offload_activations": self.offload_activations,
            "attention": self.attention,
            "overhead": FRAMEWORK if overhead is None else overhead,
            "loss": self.loss,
            "capacity": self.capacity,
            "execution": self.execution,
        }
