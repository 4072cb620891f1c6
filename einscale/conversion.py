"""A layout or an einsum in every notation, and decoded warnings of XLA, as values."""

from __future__ import annotations

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean
from einscale.mesh import Mesh
from einscale.vocabulary import CollectiveKind

NOTATIONS = ("slash", "numpy", "book", "jax", "jax-type", "dtensor", "shardy", "hlo")
"""Notations that are written."""


class Written(Struct, frozen=True):
    """A layout in one notation.

    Args:
        notation: one of `NOTATIONS`.
        text: how it is written there, None where it cannot be.
        rules: the rules that belong to it, for numpy.
        note: why it cannot be written, or what of it the notation leaves out; "" otherwise.
    """

    notation: str
    text: str | None
    rules: str = ""
    note: str = ""


class Converted(Struct, frozen=True):
    """One tensor's layout, or one einsum's, in every notation.

    Args:
        role: what it is: `tensor`, `spec`, `from` or `to`.
        canonical: slash notation.
        layouts: of each tensor the mesh axes of its dims, groups taken apart; open dims are not marked.
        written: every notation.
        lost: what was written and a layout cannot hold.
    """

    role: str
    canonical: str
    layouts: tuple[tuple[tuple[str, ...], ...], ...]
    written: tuple[Written, ...]
    lost: tuple[str, ...] = ()

    def __getitem__(self, notation: str) -> str | None:
        """How it is written in a notation, None where it cannot be."""
        found = [one.text for one in self.written if one.notation == notation]
        if not found:
            raise UsageError(
                f"unknown notation `{notation}`", hint=did_you_mean(notation, NOTATIONS, "the notations are")
            )
        return found[0]


class ReshardMove(Struct, frozen=True):
    """A collective between two layouts, per device.

    Args:
        kind: `all-gather`, `all-to-all`, ...
        axes: the mesh axes it runs over.
        text: the move in words, its layouts in slash notation.
        bytes_received: bytes a device receives.
    """

    kind: CollectiveKind
    axes: tuple[str, ...]
    text: str
    bytes_received: int


class DecodedWarning(Struct, frozen=True):
    """One warning of XLA that it will replicate a tensor, decoded.

    Args:
        operation: the HLO operation, "" if the warning names none.
        op_name: where it comes from in the program, "" if the warning does not say.
        count: how often the text has this warning.
        element: XLA's name of the element type, "" if the warning has none.
        shape: shape of the whole tensor, None if it is not known.
        before: the layout it has; None where a sharding cannot be decoded, and `note` says why.
        after: the layout it is wanted in; None likewise.
        moves: what einscale would do instead; empty where the shape is not known.
        bytes_received: bytes a device receives by them.
        bytes_replicated: bytes a device receives if the whole tensor is gathered, as XLA does.
        note: what is known no better, or why there are no moves; "" otherwise.
    """

    operation: str
    op_name: str
    count: int
    element: str
    shape: tuple[int, ...] | None
    before: Converted | None
    after: Converted | None
    moves: tuple[ReshardMove, ...] = ()
    bytes_received: int | None = None
    bytes_replicated: int | None = None
    note: str = ""


class ConvertedText(Struct, frozen=True):
    """A layout or an einsum in every notation, or the warnings of a log decoded.

    Args:
        source: the text that was read.
        syntax: the notation it was read in: one of `einscale.notation.DIALECTS`, or `xla-warning`.
        mesh: the devices, if they are known.
        item: the layout or einsum; None for warnings.
        warnings: the warnings of XLA that the text holds.
    """

    source: str
    syntax: str
    mesh: Mesh | None
    item: Converted | None = None
    warnings: tuple[DecodedWarning, ...] = ()

    def __getitem__(self, notation: str) -> str | None:
        """How the layout or einsum is written in a notation, None where it cannot be.

        Raises:
            UsageError: no such notation, or warnings were read.
        """
        if self.item is None:
            raise UsageError("a warning has two layouts", hint="take `.warnings[0].before` or `.after`")
        return self.item[notation]
