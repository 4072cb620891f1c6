"""Arithmetic that is exact on Python ints and works elementwise on numpy arrays.

Pricing code uses these instead of `if`, `max` and `//`, so that one formula prices one strategy or a million. numpy is
imported only when an argument is an array.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

Number: TypeAlias = Any
"""A Python int or float, or a numpy array of one broadcast shape."""


def is_array(value: Number) -> bool:
    """Whether `value` is an array rather than a Python scalar."""
    return not isinstance(value, (int, float))


def _any_array(*values: Number) -> bool:
    return any(not isinstance(value, (int, float)) for value in values)


def ceil_div(numerator: Number, denominator: Number) -> Number:
    """Quotient rounded up.

    >>> ceil_div(7, 2), ceil_div(8, 2)
    (4, 4)
    """
    if isinstance(numerator, int) and isinstance(denominator, int):  # nearly always, and asked for very often
        return -(-numerator // denominator)
    if _any_array(numerator, denominator):
        import numpy as np

        return np.ceil(np.asarray(numerator) / denominator)
    return -(-numerator // denominator)


def divide_exact(numerator: Number, denominator: Number) -> Number:
    """Quotient of a division that leaves no remainder; ints stay ints.

    Raises:
        ArithmeticError: the scalars do not divide.
    """
    if _any_array(numerator, denominator):
        return numerator / denominator
    quotient, remainder = divmod(numerator, denominator)
    if remainder:
        raise ArithmeticError(f"{numerator} is not a multiple of {denominator}")
    return quotient


def maximum(first: Number, second: Number) -> Number:
    """The larger of the two."""
    if isinstance(first, int) and isinstance(second, int):
        return first if first >= second else second
    if _any_array(first, second):
        import numpy as np

        return np.maximum(first, second)
    return first if first >= second else second


def minimum(first: Number, second: Number) -> Number:
    """The smaller of the two."""
    if _any_array(first, second):
        import numpy as np

        return np.minimum(first, second)
    return first if first <= second else second


def where(condition: Number, yes: Number, no: Number) -> Number:
    """`yes` where the condition holds, else `no`."""
    if _any_array(condition, yes, no):
        import numpy as np

        return np.where(condition, yes, no)
    return yes if condition else no


def log2_ceil(value: Number) -> Number:
    """Smallest k with 2**k >= value.

    >>> log2_ceil(1), log2_ceil(5), log2_ceil(8)
    (0, 3, 3)
    """
    if _any_array(value):
        import numpy as np

        return np.ceil(np.log2(value))
    return max(0, math.ceil(value) - 1).bit_length()


def product(values: Any) -> Number:
    """Product of the values; 1 for none.

    >>> product([2, 3, 4]), product([])
    (24, 1)
    """
    result: Number = 1
    for value in values:
        result = result * value
    return result


def gcd(first: Number, second: Number) -> Number:
    """Greatest common divisor."""
    if _any_array(first, second):
        import numpy as np

        return np.gcd(np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64))
    return math.gcd(first, second)


def nearest_divisors(whole: int, number: int) -> tuple[int, ...]:
    """The divisors of `whole` next to `number`: the largest below it and the smallest above it, where there are any.

    Found among the divisors up to a million and those they leave: a larger prime factor is not looked for.

    >>> nearest_divisors(16, 3), nearest_divisors(8, 100), nearest_divisors(7, 1)
    ((2, 4), (8,), (7,))
    """
    small = [divisor for divisor in range(1, min(math.isqrt(whole), 10**6) + 1) if whole % divisor == 0]
    divisors = {*small, *(whole // divisor for divisor in small)}
    below = [divisor for divisor in divisors if divisor < number]
    above = [divisor for divisor in divisors if divisor > number]
    return (*([max(below)] if below else ()), *([min(above)] if above else ()))


def nearest_multiples(number: int, unit: int) -> tuple[int, ...]:
    """The multiples of `unit` next to a number that is none, zero left out.

    >>> nearest_multiples(12, 8), nearest_multiples(3, 8)
    ((8, 16), (8,))
    """
    below = number // unit * unit
    return (below, below + unit) if below else (unit,)
