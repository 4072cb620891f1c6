"""Values in words: what hides a collective, why a tensor is held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from einscale.changes import Change
from einscale.price.hiders import Hider, HidingWork
from einscale.price.memory import HoldReason, Why

if TYPE_CHECKING:
    from einscale.layers import Unexpected

_HIDERS = {
    HidingWork.LAYER_BEFORE: "the {phase} work of the layer before it",
    HidingWork.LAYER_AFTER: "the {phase} work of the layer after it",
    HidingWork.OTHER_MICROBATCH: "the {phase} work of another microbatch",
    HidingWork.OWN_EINSUM: "{statement}, block by block",
    HidingWork.RING_BLOCK: "the attention of the block at hand",
    HidingWork.LAST_BACKWARD: "the backward pass of the last microbatch",
    HidingWork.FIRST_FORWARD: "the forward pass of the first microbatch",
}

_REASONS = {
    Why.AT_REST: "",
    Why.PASS: "{phase}",
    Why.PARAMETER: "parameter",
    Why.GRADIENT: "gradient",
    Why.STATE: "{op} of {of}",
    Why.GATHERED: "gathered",
    Why.LAYER_INPUT: "input of the layer",
    Why.READ_BACK: "{op} for {of}",
    Why.FUSED_READ_BACK: "fused {op} for {of}",
    Why.KEPT_ANYWAY: "kept though the backward pass does not read it",
    Why.BETWEEN_KERNELS: "between its kernels",
    Why.PUT_IN_ORDER: "put in order in the {phase} pass",
    Why.MADE: "made",
    Why.STREAMED: "streamed: two blocks",
}


def hider_words(hider: Hider | None) -> str:
    """The work that hides a collective; "" where nothing does.

    >>> from einscale.vocabulary import BACKWARD
    >>> hider_words(Hider(HidingWork.OTHER_MICROBATCH, BACKWARD))
    'the backward work of another microbatch'
    """
    if hider is None:
        return ""
    if hider.work is HidingWork.OWN_EINSUM and not hider.statement:
        return "the einsum that reads or makes them, block by block"
    return _HIDERS[hider.work].format(phase=hider.phase, statement=hider.statement)


def hiders_words(hiders: Iterable[Hider]) -> str:
    """Everything that hides a part of a step, each once."""
    return " and ".join(hider_words(hider) for hider in hiders)


def changes_words(changes: Iterable[Change]) -> str:
    """Changes as one would ask for them on the command line.

    >>> from einscale.changes import Option
    >>> changes_words((Change(Option.MICROBATCH, 2), Change(Option.OFFLOAD_OPTIMIZER, True)))
    '--microbatch 2 --offload-optimizer'
    """
    return " ".join(_flag(change) for change in changes)


def _flag(change: Change) -> str:
    name = f"--{change.option.value.replace('_', '-')}"
    return name if change.value is True else f"{name} {change.value}"


def unexpected_words(one: Unexpected) -> str:
    """A collective that a strategy does not expect, and what would make it expect it.

    >>> from einscale.layers import Unexpected
    >>> unexpected_words(Unexpected("block", "all-reduce", "model", "attn_out", "all-reduce model activations"))
    'block: all-reduce over model of attn_out ("all-reduce model activations")'
    """
    return f'{one.layer}: {one.kind} over {one.axis} of {one.tensor} ("{one.entry}")'


def reason_words(reason: HoldReason) -> str:
    """Why a device holds a tensor; "" for what rests where it is.

    >>> reason_words(HoldReason(Why.READ_BACK, "q", "einsum"))
    'einsum for q'
    """
    return _REASONS[reason.why].format(of=reason.of, op=reason.op, phase=reason.phase)
