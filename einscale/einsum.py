"""Einsums without layouts: index roles, iteration spaces, exact FLOPs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from einscale.errors import PlanError
from einscale.numeric import Number, product


class Einsum(Struct, frozen=True):
    """Index names of each operand and of the output; an index is a word, never a character.

    >>> matmul = Einsum((("b", "s", "d"), ("d", "f")), ("b", "s", "f"))
    >>> str(matmul), matmul.indices, matmul.contracted
    ('b s d, d f -> b s f', ('b', 's', 'd', 'f'), ('d',))
    """

    inputs: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]

    @property
    def indices(self) -> tuple[str, ...]:
        """Every index once, in order of first appearance."""
        return tuple(dict.fromkeys(index for operand in self.inputs for index in operand))

    @property
    def contracted(self) -> tuple[str, ...]:
        """Indices that are summed over: in an operand, not in the output."""
        return tuple(index for index in self.indices if index not in self.output)

    @property
    def lonely(self) -> tuple[tuple[str, ...], ...]:
        """Per operand, the indices that occur in it alone and not in the output: summed before anything else."""
        return tuple(
            tuple(
                index
                for index in dict.fromkeys(operand)
                if index not in self.output
                and not any(index in other for k, other in enumerate(self.inputs) if k != position)
            )
            for position, operand in enumerate(self.inputs)
        )

    def __str__(self) -> str:
        operands = ", ".join(" ".join(operand) for operand in self.inputs)
        return f"{operands} -> {' '.join(self.output)}".rstrip()


def index_role(einsum: Einsum, index: str) -> str:
    """What an index does: `batch` (all operands and output), `free` (some and output), `contracted` (not in output).

    >>> matmul = Einsum((("b", "m", "k"), ("b", "k", "n")), ("b", "m", "n"))
    >>> [index_role(matmul, index) for index in matmul.indices]
    ['batch', 'free', 'contracted', 'free']
    """
    if index not in einsum.output:
        return "contracted"
    return "batch" if all(index in operand for operand in einsum.inputs) and len(einsum.inputs) > 1 else "free"


def check_einsum(einsum: Einsum) -> None:
    """Raise unless every output index occurs in an operand and none twice in the output.

    Raises:
        PlanError: it does not.
    """
    known = set(einsum.indices)
    for index in einsum.output:
        if index not in known:
            raise PlanError(f"output index `{index}` occurs in no operand")
    if len(set(einsum.output)) != len(einsum.output):
        raise PlanError("an index occurs twice in the output")


def einsum_flops(operands: int, contracted: bool, iterations: Number) -> Number:
    """FLOPs of one einsum over an iteration space.

    Two operands count a multiply-add, 2 FLOPs, at every point (2mnk, as XLA counts, for outer and elementwise products
    too); one operand counts an addition a point if it sums, and nothing if it only moves data.
    """
    if operands == 1:
        return iterations if contracted else iterations * 0
    return iterations * 2 * (operands - 1)


def global_flops(einsum: Einsum, sizes: Mapping[str, Number]) -> Number:
    """FLOPs of the unsharded einsum evaluated in one go.

    >>> global_flops(Einsum((("m", "k"), ("k", "n")), ("m", "n")), {"m": 2, "k": 3, "n": 4})
    48
    """
    return einsum_flops(len(einsum.inputs), bool(einsum.contracted), product(sizes[i] for i in einsum.indices))


def implicit_output(inputs: Iterable[tuple[str, ...]], *, alphabetical: bool = False) -> tuple[str, ...]:
    """Indices that occur exactly once over all operands: numpy's rule for an einsum without `->`.

    numpy sorts them alphabetically; our own notation keeps the order of appearance.

    >>> implicit_output([("b", "a"), ("a", "c")]), implicit_output([("c", "a"), ("a", "b")], alphabetical=True)
    (('b', 'c'), ('b', 'c'))
    """
    every = [index for operand in inputs for index in operand]
    once = [index for index in every if every.count(index) == 1]
    return tuple(sorted(once)) if alphabetical else tuple(once)
