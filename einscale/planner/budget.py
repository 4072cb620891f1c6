"""How much work an answer may take that consists of several plans, counted so that every run gives the same answer."""

from __future__ import annotations

ALLOWED = 50_000
"""Partial placements and moves that one answer looks at: about half a second of plain Python on one core of 2024."""

FULL = 12_000
"""What one plan of two operands looks at with all the effort it may take."""

PLAN = 150
"""What a plan of two operands takes however little it looks at."""

LEAST = 1 / 64
"""Least effort of a plan."""


class Budget:
    """Work that is left to an answer.

    Args:
        plans: how many plans the answer takes, about.
        effort: share of the usual work.

    >>> Budget(1).effort, Budget(20).effort
    (1.0, 0.125)
    >>> budget = Budget(20)
    >>> budget.spend(60_000)
    >>> budget.over
    True
    """

    __slots__ = ("effort", "left", "spent")

    def __init__(self, plans: int, effort: float = 1.0) -> None:
        """Share it out: a power of two for every plan, so that answers are remembered."""
        self.left = ALLOWED * effort
        self.spent = 0
        share = self.left / FULL / plans
        self.effort = 1.0
        while self.effort > share and self.effort > LEAST:
            self.effort /= 2

    @property
    def over(self) -> bool:
        """Whether all is spent."""
        return self.left <= self.spent

    def spend(self, work: int) -> None:
        """Take off what a plan looked at."""
        self.spent += work + PLAN
