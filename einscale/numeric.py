"""Arithmetic that is exact on Python ints and works elementwise on numpy arrays.

Pricing code uses these instead of `if`, `max` and `//`, so that one formula prices one strategy or a million. numpy is
imported only when an argument is an array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, TypeAlias

REAL_NUMBERS = False
"""What a number is to mypy: in its first run anything, in its second (`.ci/mypy-numbers.ini`), of the modules that
price an int, a float or an array."""

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import TypeIs

    Array: TypeAlias = NDArray[Any]
    """A numpy array."""
else:
    Array = Any  # numpy is not imported for a name

if TYPE_CHECKING and REAL_NUMBERS:
    Condition: TypeAlias = bool | NDArray[Any]
    Number: TypeAlias = int | float | NDArray[Any]
else:
    Condition: TypeAlias = Any
    Number: TypeAlias = Any
    """A Python int or float, or a numpy array of one broadcast shape."""


def is_array(value: Number) -> TypeIs[Array]:
    """Whether `value` is an array rather than a Python scalar."""
    return not isinstance(value, (int, float))


def as_int(value: Number) -> int:
    """A number of one point as an exact int.

    >>> as_int(4.0)
    4

    Raises:
        TypeError: it is an array: what asks is for one point only.
    """
    if isinstance(value, (int, float)):
        return int(value)
    raise TypeError(f"numbers of {value.size} points where one was to be")


def as_float(value: Number) -> float:
    """A number of one point as it is.

    Raises:
        TypeError: it is an array: what asks is for one point only.
    """
    if isinstance(value, (int, float)):
        return value
    raise TypeError(f"numbers of {value.size} points where one was to be")


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


def maximum(first: Number, second: Number, *more: Number) -> Number:
    """The largest of the numbers, elementwise.

    >>> maximum(1, 3, 2)
    3
    """
    if more:
        return maximum(maximum(first, second), *more)
    if isinstance(first, int) and isinstance(second, int):
        return first if first >= second else second
    if _any_array(first, second):
        import numpy as np

        return np.maximum(first, second)
    return first if first >= second else second


def minimum(first: Number, second: Number, *more: Number) -> Number:
    """The smallest of the numbers, elementwise."""
    if more:
        return minimum(minimum(first, second), *more)
    if _any_array(first, second):
        import numpy as np

        return np.minimum(first, second)
    return first if first <= second else second


def largest(numbers: Iterable[Number]) -> Number:
    """The largest of several numbers, elementwise; 1 for none.

    >>> largest([2, 5, 3])
    5
    """
    found: Number | None = None
    for number in numbers:
        found = number if found is None else maximum(found, number)
    return 1 if found is None else found


def not_(condition: Condition) -> Condition:
    """Where a condition does not hold."""
    return ~condition if is_array(condition) else not condition


def least(cost: Callable[[Any], Number], ways: Sequence[Any], like: Number) -> Number:
    """The least cost of several ways, each a value of numbers: tried one by one, or all at once where there are arrays.

    Args:
        cost: of a way; elementwise, so that it can be asked of all of them as columns of arrays.
        ways: values of one Struct.
        like: a number as the cost comes in: an array where there are many points.

    >>> least(lambda pair: pair.real * 2, [3 + 0j, 2 + 0j], 1)
    4.0
    """
    if not getattr(like, "shape", ()):
        return min(cost(way) for way in ways)
    import numpy as np

    fewest: Number = np.min(cost(_columns(tuple(ways))), axis=0)
    return fewest


@lru_cache(maxsize=256)
def _columns(ways: tuple[Any, ...]) -> Any:
    """Values of one Struct as one, each field a column of theirs."""
    import numpy as np

    fields = ways[0].__struct_fields__
    return type(ways[0])(*(np.array([getattr(way, name) for way in ways])[:, None] for name in fields))


def where(condition: Condition, yes: Number, no: Number) -> Number:
    """`yes` where the condition holds, else `no`."""
    if _any_array(condition, yes, no):
        import numpy as np

        return np.where(condition, yes, no)
    return yes if condition else no


def exact(value: Number) -> Number:
    """A count as an exact int; arrays hold counts as floats and stay as they are.

    >>> exact(4.0)
    4
    """
    return value if is_array(value) else int(value)


def truncate(value: Number) -> Number:
    """Rounded towards zero: an int, or an array of whole numbers.

    >>> truncate(2.75)
    2
    """
    if is_array(value):
        import numpy as np

        return np.trunc(value)
    return int(value)


def rounded(value: Number) -> Number:
    """The nearest whole number, the even one of two: an int, or an array of whole numbers.

    >>> rounded(2.5), rounded(3.5)
    (2, 4)
    """
    if is_array(value):
        import numpy as np

        return np.rint(value)
    return round(value)


def ratio(part: Number, whole: Number, otherwise: Number) -> Number:
    """`part / whole`, and `otherwise` where the whole is nothing.

    >>> ratio(1, 4, 9), ratio(1, 0, 9)
    (0.25, 9)
    """
    if _any_array(part, whole):
        import numpy as np

        whole = np.asarray(whole)
        return np.where(whole != 0, part / np.where(whole != 0, whole, 1), otherwise)
    return part / whole if whole else otherwise


def never(condition: Condition) -> bool:
    """Whether a condition holds nowhere: what would be worked out for it need not be.

    >>> never(1 > 2), never(2 > 1)
    (True, False)
    """
    if isinstance(condition, bool):
        return not condition
    return not condition.any() if hasattr(condition, "any") else not condition


def one_of(value: Number, place: int) -> Number:
    """The number of one of many points as a Python number; a number is that of all of them.

    >>> import numpy
    >>> one_of(numpy.array([1.5, 2.5]), 1), one_of(7, 1)
    (2.5, 7)
    """
    if not is_array(value):
        return value
    one: Number = (value[place] if value.shape else value).item()
    return one


def scattered(values: Sequence[Number], places: Sequence[Any], count: int) -> Number:
    """Numbers of some of many points each as one array of all of them; 0 where nothing is given.

    Args:
        values: a number or an array each.
        places: numbers of their points.
        count: points altogether.

    >>> scattered([1.5, 2], [[0, 3], [1]], 4)
    array([1.5, 2. , 0. , 1.5])
    """
    import numpy as np

    column = np.zeros(count)
    for place, value in zip(places, values, strict=True):
        column[place] = value
    return column


def tabulated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a few small numbers, remembered; of arrays it is worked out once for each distinct combination.

    It may branch and loop as it likes, for it only ever sees Python numbers.

    >>> @tabulated
    ... def longer(count, limit):
    ...     return limit if count > limit else count
    >>> longer(5, 3)
    3
    >>> import numpy
    >>> longer(numpy.array([1.0, 5.0, 1.0]), 3)
    array([1., 3., 1.])
    """
    remembered = lru_cache(maxsize=65536)(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if not any(is_array(one) and hasattr(one, "shape") for one in arguments):
            return remembered(*arguments)
        import numpy as np

        varying = [place for place, one in enumerate(arguments) if hasattr(one, "shape")]
        columns = np.broadcast_arrays(*(arguments[place] for place in varying))
        rows = np.stack([column.ravel() for column in columns], axis=1)
        distinct, where_from = np.unique(rows, axis=0, return_inverse=True)
        found = np.empty(len(distinct))
        for number, row in enumerate(distinct.tolist()):
            scalars = list(arguments)
            for place, value in zip(varying, row, strict=True):
                scalars[place] = int(value) if float(value).is_integer() else value
            found[number] = remembered(*scalars)
        return found[where_from.ravel()].reshape(columns[0].shape)

    return call


def log2_ceil(value: Number) -> Number:
    """Smallest k with 2**k >= value.

    >>> log2_ceil(1), log2_ceil(5), log2_ceil(8)
    (0, 3, 3)
    """
    if is_array(value):
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
    return math.gcd(as_int(first), as_int(second))


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
