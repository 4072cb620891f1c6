"""Programs as frozen values: SSA statements over named tensors whose axes have names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec import Struct

from einscale.einsum import Einsum
from einscale.layout import Chosen, Tensor
from einscale.vocabulary import ACTIVATION, FORWARD, PARAMETER, Phase, ValueKind

Option: TypeAlias = str | int | float | tuple[str, ...]


class Value(Struct, frozen=True):
    """A tensor of a program.

    Args:
        name: unique in its program.
        axes: one axis name per dim; sizes are looked up by axis name.
        dtype: element type: a canonical dtype.
        kind: `input` (fed in), `parameter`, `activation` (made forward), `residual` (a statement's extra output that
            only the backward pass reads: dropout mask, log-sum-exp), `gradient`, or `cache` (kept for later tokens:
            keys and values; fed in, and what `append` makes of it). Programs of an optimizer's update have `state`
            (what the optimizer keeps) and `updated` (a parameter after the step) besides.
        of: for a gradient, the value it is the gradient of; for a state or an updated parameter, the parameter.
        chosen: (axis, count): at every position of the other axes only so many of its elements exist (the experts that
            a token is sent to), spread evenly.
    """

    name: str
    axes: tuple[str, ...]
    dtype: str
    kind: ValueKind = ACTIVATION
    of: str | None = None
    chosen: Chosen = ()

    def __str__(self) -> str:
        return str(self.tensor)

    @property
    def tensor(self) -> Tensor:
        """The value as a tensor, labelled by its own axes."""
        return Tensor(self.name, self.axes, self.dtype, self.chosen)

    def labelled(self, labels: tuple[str, ...]) -> Tensor:
        """The value as a tensor whose dims are called by the labels an einsum reads or makes it with.

        >>> Value("x", ("e", "s"), "bf16", chosen=(("e", 2),)).labelled(("i", "j")).chosen
        (('i', 2),)
        """
        chosen = tuple((labels[self.axes.index(axis)], count) for axis, count in self.chosen)
        return Tensor(self.name, labels, self.dtype, chosen)


class Statement(Struct, frozen=True):
    """One operation: an einsum, or a map of the table in `maps`.

    Args:
        op: `einsum` or the name of a map.
        inputs: names of the values it reads, in order.
        outputs: names of the values it makes: the result, then its residuals (a dropout's mask).
        labels: for an einsum the labels of each input and last of the output, positional on the values' axes (a value
            with axes `b s n k` may be read as `b t n k`); empty for a map.
        options: sorted (name, value) pairs of a map: the axis it reduces (`axis`), a rate, a variant.
        section: what sub-total it belongs to: `attention`, `mlp`, or "" for none.
        group: statements that share a non-empty group are fused where the strategy says so: interior values are never
            written to memory, nor saved.
        phase: `forward`, `recompute` (forward work redone in the backward pass), `backward`, or `update`.
        source: for a backward or recompute statement, the first output of the forward statement it came from.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...] = ()
    options: tuple[tuple[str, Option], ...] = ()
    section: str = ""
    group: str = ""
    phase: Phase = FORWARD
    source: str = ""

    @property
    def output(self) -> str:
        """The result; residuals left out."""
        return self.outputs[0]

    @property
    def einsum(self) -> Einsum:
        """The einsum of an einsum statement."""
        return Einsum(self.labels[:-1], self.labels[-1])

    def option(self, name: str, default: Option = "") -> Option:
        """Value of an option."""
        return dict(self.options).get(name, default)


class Program(Struct, frozen=True, dict=True):
    """Statements in order, the values they read and make, and what goes in and out.

    Args:
        name: `embedding`, `block`, `head`, or the user's own.
        values: every value, inputs and parameters first, then in order of making.
        statements: in order; each value is made once.
        inputs: names of the values fed in.
        outputs: names of the results.
        sizes: axis name -> size, for the axes the program itself fixes (d, f, h, ...); batch and sequence usually come
            from the caller.
        composites: name of a composite -> the axes it is made of, major to minor: query heads `h` = (`n`, `g`), kv
            heads by group. A rule that names the composite divides its first axis as far as it goes, then the next.
        tied: parameters that live in another program of the model and are counted there.
        repeat: how many layers of the model run it, each with parameters of its own.
    """

    name: str
    values: tuple[Value, ...]
    statements: tuple[Statement, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...] = ()
    composites: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tied: tuple[str, ...] = ()
    repeat: int = 1

    @cached_property
    def table(self) -> Mapping[str, Value]:
        """Value name -> value; made once and shared by all that read the program, so it cannot be written to."""
        return MappingProxyType({value.name: value for value in self.values})

    @cached_property
    def kept(self) -> dict[object, dict[object, Any]]:
        """What has been worked out of it, by the function that did."""
        return {}

    @cached_property
    def parameters(self) -> tuple[Value, ...]:
        """The parameters, in order."""
        return tuple(value for value in self.values if value.kind == PARAMETER)
