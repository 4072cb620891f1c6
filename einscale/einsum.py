"""Einsums without layouts: index roles, iteration spaces, exact FLOPs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from einscale.errors import PlanError
from einscale.numeric import Number


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


ALL_TREES = 4
"""With no more operands than this every contraction tree is considered (3 operands: 3 trees, 4: 15)."""

Path = tuple[tuple[int, int], ...]


def contraction_paths(einsum: Einsum, sizes: Mapping[str, int]) -> tuple[Path, ...]:
    """Orders in which to contract the operands two by two.

    A path is a list of pairs of positions; the two operands leave the list and their product joins its end, as in
    opt_einsum. Up to `ALL_TREES` operands every tree is there, each once; beyond, the one that opt_einsum finds.

    >>> contraction_paths(Einsum((("i", "j"), ("j", "k"), ("k", "l")), ("i", "l")), {})
    (((0, 1), (0, 1)), ((0, 2), (0, 1)), ((1, 2), (0, 1)))
    """
    count = len(einsum.inputs)
    if count <= ALL_TREES:
        return _all_paths(tuple(frozenset({k}) for k in range(count)))
    import opt_einsum

    symbols = {index: opt_einsum.get_symbol(k) for k, index in enumerate(einsum.indices)}
    terms = ["".join(symbols[index] for index in operand) for operand in einsum.inputs]
    equation = f"{','.join(terms)}->{''.join(symbols[index] for index in einsum.output)}"
    shapes = [tuple(sizes[index] for index in operand) for operand in einsum.inputs]
    found, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize="auto")
    return (_pairwise(found, count),)


def _all_paths(groups: tuple[frozenset[int], ...]) -> tuple[Path, ...]:
    """Every tree once: pairs are merged in an order that makes equal trees equal paths."""
    trees: dict[frozenset[frozenset[int]], Path] = {}

    def merge(current: tuple[frozenset[int], ...], made: frozenset[frozenset[int]], path: Path) -> None:
        if len(current) <= 1:
            trees.setdefault(made, path)
            return
        for i in range(len(current)):
            for j in range(i + 1, len(current)):
                joined = current[i] | current[j]
                rest = tuple(group for k, group in enumerate(current) if k not in (i, j))
                merge((*rest, joined), made | {joined}, (*path, (i, j)))

    merge(groups, frozenset(), ())
    return tuple(trees.values())


def _pairwise(path: Iterable[tuple[int, ...]], count: int) -> Path:
    """opt_einsum's path, contractions of three and more taken two at a time."""
    result: list[tuple[int, int]] = []
    for group in path:
        positions = sorted(group)
        while len(positions) >= 2:
            i, j = positions[0], positions[1]
            result.append((i, j))
            count -= 1
            positions = [p - (p > i) - (p > j) for p in positions[2:]] + [count - 1]
    return tuple(result)
