"""Expected numbers of devices and nodes that a token is sent to, against enumeration."""

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einscale.expert_spread import distinct_share, expected_blocks


def enumerated(elements: int, blocks: int, top: int, groups: int = 1, top_groups: int = 1) -> Fraction:
    """Blocks met, averaged over every way to draw the groups and then the elements."""
    size, group = -(-elements // blocks), elements // groups
    met, ways = 0, 0
    for drawn_groups in combinations(range(groups), top_groups):
        allowed = [element for element in range(elements) if element // group in drawn_groups]
        for drawn in combinations(allowed, top):
            met += len({element // size for element in drawn})
            ways += 1
    return Fraction(met, ways)


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, 12), st.integers(1, n))))
def test_expected_blocks_are_those_of_every_draw(case: tuple[int, int, int]) -> None:
    assert expected_blocks(*case) == enumerated(*case)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize(("groups", "top_groups"), [(1, 1), (2, 1), (3, 2), (4, 2), (6, 3), (4, 4)])
def test_limited_routing_draws_the_groups_first(blocks: int, groups: int, top_groups: int) -> None:
    top = min(3, 12 // groups * top_groups)
    assert expected_blocks(12, blocks, top, groups, top_groups) == enumerated(12, blocks, top, groups, top_groups)


@given(st.integers(1, 64), st.integers(1, 64), st.data())
def test_a_token_meets_at_least_one_block_and_no_more_than_it_has_elements(
    elements: int, blocks: int, data: st.DataObject
) -> None:
    top = data.draw(st.integers(1, elements))
    met = expected_blocks(elements, blocks, top)
    assert 1 <= met <= min(top, blocks)
    assert met == 1 or blocks > 1
    assert met <= expected_blocks(elements, 2 * blocks, top)


@pytest.mark.parametrize("blocks", [2, 8, 64])
@pytest.mark.parametrize("top", [1, 2, 8])
def test_many_experts_are_as_good_as_drawn_with_replacement(blocks: int, top: int) -> None:
    # How To Scale Your Model, GPUs: a token's row reaches a given device with probability 1 - ((Z-1)/Z)^k.
    book = 1 - ((blocks - 1) / blocks) ** top
    assert float(expected_blocks(2**16, blocks, top)) / blocks == pytest.approx(book, rel=1e-3)


def test_deepseek_v3_reaches_at_most_four_of_eight_nodes() -> None:
    free, limited = expected_blocks(256, 8, 8), expected_blocks(256, 8, 8, 8, 4)
    assert free == 8 * (1 - Fraction(comb(224, 8), comb(256, 8)))
    assert 3.5 < limited < 4 < free
    # Limited to 4 of 8 nodes, the drawn experts lie among 128: each of the four is missed by all of them seldom.
    assert limited == 4 * (1 - Fraction(comb(96, 8), comb(128, 8)))


def test_shares_of_arrays_are_those_of_scalars() -> None:
    elements, blocks = np.array([8, 8, 256, 60]), np.array([[1], [2], [8]])
    shares = distinct_share(elements, blocks, 4)
    assert shares.shape == (3, 4)
    for (row, column), share in np.ndenumerate(shares):
        assert share == pytest.approx(float(distinct_share(int(elements[column]), int(blocks[row, 0]), 4)), rel=1e-12)
