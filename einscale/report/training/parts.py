"""Parts of a step in words: where its time goes, and the moment at which a device holds most."""

from __future__ import annotations

from einscale.price.spent import SpentPart, TimePart
from einscale.report.words import hiders_words
from einscale.training.moves import STAGES, Move
from einscale.training.values import AtWork, TrainReport
from einscale.units import format_bytes

WORDS = {
    "routed": "tokens to experts, and back",
    "statistics": "statistics of divided axes",
    "streamed": "keys and values around a ring",
    "optimizer": "what the optimizer wants",
}
"""Parts and collectives in words, where their name needs some."""

_PARTS = {
    TimePart.OFFLOADED_ACTIVATIONS: "offload",
    TimePart.OFFLOADED_OPTIMIZER: "offload",
    TimePart.TRAFFIC: "activations",
    TimePart.SHARED_TABLE: "gradients once a step",
}
"""Names of parts in documents and tables, where they are not the value."""

_NOTES = {
    TimePart.ACCUMULATE: "gradients of earlier microbatches read back",
    TimePart.RECOMPUTE: "forward work done again in the backward pass",
    TimePart.OFFLOADED_ACTIVATIONS: "activations to the host and back; the work has time for {rate:.1f} GB/s",
    TimePart.WEIGHTS: "kernels that wait for memory, for the weights they read",
    TimePart.CACHE: "the same, for keys, values and states",
    TimePart.TRAFFIC: "the same, for everything else",
    TimePart.COMPUTE: "kernels that wait for the arithmetic",
    TimePart.LAUNCH: "starts of kernels, and waiting for the host",
    TimePart.HOPS: "the residual stream to the next pipeline stage",
    TimePart.BUBBLE: "waiting for other stages and for transfers between them",
    TimePart.WAIT: "for the update of a slower stage",
    TimePart.GRADIENTS_ONCE: "gradients, once a step",
    TimePart.PARAMETERS_ONCE: "parameters, once a step",
    TimePart.FIRST_AND_LAST: "nothing runs yet, or any more, to hide their moves",
    TimePart.OPTIMIZER_ONCE: "what {optimizer} wants whole, or sums",
    TimePart.SHARED_TABLE: "{tensors}: the first and the last stage share the table",
    TimePart.UPDATE: "{optimizer}: gradients, weights and states through HBM",
    TimePart.OFFLOADED_OPTIMIZER: "gradients to the host and parameters back",
}
"""What a part of a step's time is, where its name does not say it."""


def part_name(what: TimePart) -> str:
    """The name of a part of a step's time in tables and documents."""
    return _PARTS.get(what, what.value)


def part_words(part: SpentPart, optimizer: str) -> str:
    """What a part of a step's time is, what hides the rest left out; "" where its name says it.

    Args:
        part: of a report.
        optimizer: its name.
    """
    words = _NOTES.get(part.what, "")
    return words.format(optimizer=optimizer, tensors=", ".join(part.tensors), rate=part.rate / 1e9)


def part_note(part: SpentPart, optimizer: str) -> str:
    """What a part of a step's time is, and what hides the rest of it.

    Args:
        part: of a report.
        optimizer: its name.

    >>> from einscale.price.hiders import Hider, HidingWork
    >>> part_note(SpentPart(TimePart.GRADIENTS_ONCE, 1.0, "data", 2.0, (Hider(HidingWork.LAST_BACKWARD),)), "adamw")
    'gradients, once a step; hidden behind the backward pass of the last microbatch'
    """
    behind = f"hidden behind {hiders_words(part.hidden_by)}" if part.hidden_by else ""
    return "; ".join(words for words in (part_words(part, optimizer), behind) if words)


def moment_words(moment: AtWork | None) -> str:
    """The statement that runs when a device holds most; "" where none does."""
    return f"{moment.phase} of {moment.statement} in {moment.kind}" if moment else ""


def moved_words(move: Move) -> str:
    """A group of collectives in words: kind, and what is moved."""
    what = WORDS.get(move.what, move.what)
    return f"{move.priced.step.kind} {what}" if move.what == STAGES else f"{move.priced.step.kind} of {what}"


def verdict(report: TrainReport, units: str) -> str:
    """Whether the step fits, and by how much not.

    Args:
        report: the step.
        units: `iec` or `si`.
    """
    stage, left = report.fullest, report.fullest.memory.left
    where = f"stage {stage.stage}" if len(report.stages) > 1 else "a device"
    needs = f"{where} needs {format_bytes(stage.memory.needed, units)} of {format_bytes(report.capacity, units)}"
    word = "fits" if report.fits else "does not fit"
    return f"{word}: {needs}, {format_bytes(abs(left), units)} {'left' if left >= 0 else 'too much'}"
