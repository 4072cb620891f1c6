"""How many devices a token is sent to: its experts are drawn evenly, and several may lie on one device.

E experts lie in z contiguous blocks, one to a device or node, and a token has k different ones. A block of n experts
holds none of them with probability C(E - n, k) / C(E, k), so it is met with one minus that, and the expected number of
blocks met is the sum. Where routing is limited to the best t of G groups of experts (DeepSeek-V3, arXiv 2412.19437,
section 2.1.2) the groups are drawn first, evenly, then the experts among theirs.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING

from einscale.numeric import Number, is_array

if TYPE_CHECKING:
    from fractions import Fraction


@lru_cache(maxsize=4096)
def expected_blocks(elements: int, blocks: int, top: int, groups: int = 1, top_groups: int = 1) -> Fraction:
    """Expected number of blocks that hold at least one of the elements drawn, exactly.

    Blocks are contiguous and of equal size, the last ones smaller or empty where the size does not divide.

    >>> float(expected_blocks(256, 256, 8)), round(float(expected_blocks(256, 8, 8)), 3)
    (8.0, 5.295)
    >>> round(float(expected_blocks(256, 8, 8, groups=8, top_groups=4)), 3)  # at most 4 nodes
    3.629

    Args:
        elements: experts.
        blocks: devices or nodes that they are divided over.
        top: experts drawn for a token; at most as many as may be drawn from.
        groups: equal contiguous groups of experts, of which the experts drawn lie in `top_groups`.
        top_groups: see `groups`.
    """
    from fractions import Fraction

    size = -(-elements // blocks)
    met = Fraction(0)
    for block in range(min(blocks, -(-elements // size))):
        start, stop = block * size, min((block + 1) * size, elements)
        met += 1 - _missed(elements, start, stop, top, groups, top_groups)
    return met


def _missed(elements: int, start: int, stop: int, top: int, groups: int, top_groups: int) -> Fraction:
    """Probability that none of the elements drawn lies in a range."""
    from fractions import Fraction

    size = -(-elements // groups)
    parts = [
        min(stop, (group + 1) * size) - max(start, group * size)
        for group in range(start // size, min(groups, -(-stop // size)))
    ]
    drawn_from = min(top_groups * size, elements)
    drawn = min(top, drawn_from)
    ways: dict[tuple[int, int], int] = {(0, 0): 1}  # (groups of the range that are drawn, elements of it in them)
    for part in parts:
        for (many, within), count in tuple(ways.items()):
            key = many + 1, within + part
            ways[key] = ways.get(key, 0) + count
    outside, total = groups - len(parts), comb(groups, top_groups) * comb(drawn_from, drawn)
    missed = sum(
        count * comb(outside, top_groups - many) * comb(max(drawn_from - within, 0), drawn)
        for (many, within), count in ways.items()
        if many <= top_groups
    )
    return Fraction(missed, total)


def distinct_share(elements: Number, blocks: Number, top: int, groups: int = 1, top_groups: int = 1) -> Number:
    """Expected blocks met, as a share of the elements drawn: what is sent once of what copies for each would be.

    An exact fraction on ints; elementwise on arrays.

    >>> distinct_share(4, 2, 2), distinct_share(4, 1, 2)
    (Fraction(5, 6), Fraction(1, 2))
    """
    if not is_array(elements) and not is_array(blocks):
        return expected_blocks(elements, blocks, top, groups, top_groups) / top
    import numpy as np

    pairs = np.broadcast_arrays(np.asarray(elements), np.asarray(blocks))
    found = {
        pair: float(expected_blocks(int(pair[0]), int(pair[1]), top, groups, top_groups)) / top
        for pair in set(zip(*(array.ravel().tolist() for array in pairs), strict=True))
    }
    flat = [found[pair] for pair in zip(*(array.ravel().tolist() for array in pairs), strict=True)]
    return np.array(flat).reshape(pairs[0].shape)
