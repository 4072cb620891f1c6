"""Einsums of three and more operands: contraction trees, and the layouts in which intermediate results rest.

A tree is planned from its leaves. Every intermediate result keeps a few layouts it can have, each with the cheapest
steps that lead there: the one its einsum leaves it in, the same with sums still owed, and those in which the next
einsum reads it. The layouts of intermediates are thereby chosen well, but not proven best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product as every

from msgspec import Struct
from msgspec.structs import replace

from einscale.digits import digits_of
from einscale.einsum import Einsum, Path, contraction_paths, einsum_flops
from einscale.errors import PlanError
from einscale.layout import Layout, Tensor, local_shape
from einscale.mesh import Mesh
from einscale.numeric import product
from einscale.planner.budget import Budget
from einscale.planner.canonical import canonical_order
from einscale.planner.counts import most_shards
from einscale.planner.pair import PlannedEinsum, Terms, plan_pair
from einscale.planner.question import Question, Wanted
from einscale.steps import LocalEinsum, Plan, Step, plan_flops, plan_received

LAYOUTS = 3
"""Most layouts of an intermediate result that are kept."""

TREES = 6
"""Most contraction trees that are planned, those of the fewest FLOPs first."""

ALLOTMENTS = 12
"""Most ways to share out a cap on FLOPs among the contractions of a tree."""

LARGEST = 4096
"""Meshes of more devices than this share out what is to spare in one piece."""

PLANS = 40
"""Plans of two operands that one of several takes, about."""

NOTE = "the layouts of intermediate results are chosen among a few candidates, not proven best"

CUT = "; the search stopped at its bound on work"
"""Added where not every contraction tree and layout was looked at."""


class Reachable(Struct, frozen=True):
    """A layout that a tensor can have: the steps that lead there and their cost (bytes, or seconds)."""

    layout: Layout
    cost: float
    steps: tuple[Step, ...] = ()


class Contraction(Struct, frozen=True):
    """One step of a tree: positions of the two operands among the tensors at hand, and their product."""

    first: int
    second: int
    output: Tensor


def plan_many(
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    output: Tensor,
    wanted: Wanted,
    sizes: Mapping[str, int],
    mesh: Mesh,
    terms: Terms,
) -> PlannedEinsum:
    """Plan an einsum of three and more operands; arguments as of `plan_einsum`.

    Raises:
        PlanError: no tree keeps within the cap on FLOPs.
    """
    order = canonical_order(tensors, layouts, output, wanted, sizes, digits_of(mesh, _named(layouts, wanted)))
    operands = tuple(tensors[k] for k in order)
    given = tuple(layouts[k] for k in order)
    einsum = Einsum(tuple(tensor.indices for tensor in operands), output.indices)
    trees = [contractions(path, operands, output) for path in contraction_paths(einsum, sizes)]
    needs = [least_flops(tree, operands, given, sizes, mesh) for tree in trees]
    ranked = sorted(range(len(trees)), key=lambda k: (sum(needs[k]), k))
    least = sum(needs[ranked[0]])
    cap = terms.max_flops
    budget = Budget(PLANS, terms.effort)
    jobs: list[tuple[int, tuple[int | None, ...]]] = []
    for k in ranked[:TREES]:
        spare = None if cap is None else cap - sum(needs[k])
        if (spare is not None and spare < 0) or (cap is None and terms.network is None and sum(needs[k]) > least):
            break
        jobs += [(k, caps) for caps in _allotments(needs[k], spare, mesh.devices)]
    best: Reachable | None = None
    narrow: dict[tuple[int, tuple[int | None, ...]], float] = {}
    for wide in (False, True):
        for job in sorted(jobs, key=lambda job: narrow.get(job, 0.0)):
            if budget.over and best is not None:
                break
            tree = _Tree(trees[job[0]], operands, given, wanted, sizes, mesh, terms, job[1], budget, wide)
            found = tree.planned()
            if found is not None and (best is None or found.cost < best.cost):
                best = found
            narrow[job] = math.inf if found is None else found.cost
    if best is None:
        raise PlanError(
            f"no contraction tree keeps within {cap} FLOPs per device", hint=f"the least attainable is {least}"
        )
    plan = Plan(tensors, layouts, best.steps, output, best.layout)
    return PlannedEinsum(
        plan,
        False,
        NOTE + CUT if budget.over else NOTE,
        int(plan_received(plan, sizes, mesh)),
        int(plan_flops(plan, sizes, mesh.degrees)),
        None if terms.network is None else best.cost,
        budget.spent,
    )


def _named(layouts: tuple[Layout, ...], wanted: Wanted) -> tuple[str, ...]:
    """Every mesh axis, or part of one, that a question names."""
    names = [axis for layout in layouts for axis in layout.axes]
    names += [axis for dim in wanted.dims if dim for axis in dim]
    return (*names, *wanted.unreduced)


def contractions(path: Path, tensors: tuple[Tensor, ...], output: Tensor) -> tuple[Contraction, ...]:
    """A path with the tensors it makes; an intermediate keeps the indices that something later needs."""
    taken = {tensor.name for tensor in tensors} | {output.name}
    hand = list(tensors)
    result = []
    for number, (i, j) in enumerate(path):
        first, second = hand[i], hand[j]
        hand = [tensor for k, tensor in enumerate(hand) if k not in (i, j)]
        if number == len(path) - 1:
            made = output
        else:
            needed = {index for tensor in hand for index in tensor.indices} | set(output.indices)
            both = dict.fromkeys(first.indices + second.indices)
            name = f"{first.name}_{second.name}"
            while name in taken:
                name += "_"
            taken.add(name)
            made = Tensor(name, tuple(index for index in both if index in needed), output.dtype)
        hand.append(made)
        result.append(Contraction(i, j, made))
    return tuple(result)


def least_flops(
    tree: tuple[Contraction, ...],
    tensors: tuple[Tensor, ...],
    layouts: tuple[Layout, ...],
    sizes: Mapping[str, int],
    mesh: Mesh,
) -> list[int]:
    """Least FLOPs per device of every contraction of a tree, the local sums of lonely indices included."""
    hand: list[tuple[Tensor, Layout | None]] = list(zip(tensors, layouts, strict=True))
    digits = digits_of(mesh)
    result = []
    for step in tree:
        chosen = (hand[step.first], hand[step.second])
        hand = [entry for k, entry in enumerate(hand) if k not in (step.first, step.second)] + [(step.output, None)]
        pair = tuple(tensor for tensor, _ in chosen)
        lonely = Einsum(tuple(tensor.indices for tensor in pair), step.output.indices).lonely
        flops = 0
        left = []
        for (tensor, layout), alone in zip(chosen, lonely, strict=True):
            if alone and layout is not None:
                flops += product(local_shape(layout, tensor.indices, sizes, mesh.degrees))
            left.append(Tensor(tensor.name, tuple(i for i in dict.fromkeys(tensor.indices) if i not in alone)))
        whole = tuple(Layout(((),) * len(tensor.indices)) for tensor in left)
        open_output = Wanted((None,) * len(step.output.indices))
        question = Question(tuple(left), whole, step.output, open_output, sizes, digits)
        shards = most_shards(question, question.even[1])
        result.append(flops - (-einsum_flops(2, True, question.iterations) // shards))
    return result


def _allotments(needs: list[int], spare: int | None, devices: int) -> list[tuple[int | None, ...]]:
    """Caps for the contractions that together keep within what there is.

    All but one get their least FLOPs times a divisor of the number of devices (work done that many times over), and
    one, each in turn, what is left.
    """
    if spare is None:
        return [(None,) * len(needs)]
    if not spare:
        return [tuple(needs)]
    repeats = [n for n in range(1, devices + 1) if devices % n == 0] if devices <= LARGEST else [1]
    result: dict[tuple[int | None, ...], None] = {}
    for lucky in range(len(needs)):
        others = [need for k, need in enumerate(needs) if k != lucky]
        for choice in every(repeats, repeat=len(others)):
            caps = [need * times for need, times in zip(others, choice, strict=True)]
            left = sum(needs) + spare - sum(caps)
            if left >= needs[lucky]:
                result[*caps[:lucky], left, *caps[lucky:]] = None
            if len(result) >= ALLOTMENTS:
                return list(result)
    return list(result)


class _Tree(Struct, frozen=True):
    """A contraction tree with the operands at its leaves.

    Args:
        steps: the contractions.
        tensors, layouts, wanted, sizes, mesh, terms: as of `plan_einsum`.
        caps: on the FLOPs of every contraction.
        budget: the work that is left.
        wide: whether several layouts of an intermediate result are looked at, or only the cheapest.
    """

    steps: tuple[Contraction, ...]
    tensors: tuple[Tensor, ...]
    layouts: tuple[Layout, ...]
    wanted: Wanted
    sizes: Mapping[str, int]
    mesh: Mesh
    terms: Terms
    caps: tuple[int | None, ...]
    budget: Budget
    wide: bool

    def planned(self) -> Reachable | None:
        """The best plan; None where a cap cannot be kept."""
        hand = list(self.tensors)
        options = [[Reachable(layout, 0.0)] for layout in self.layouts]
        try:
            for number, step in enumerate(self.steps):
                pair = (hand[step.first], hand[step.second])
                choices = (options[step.first], options[step.second])
                ask = _Ask(pair, choices, step.output, self.sizes, self.mesh, self._terms(number), self.budget)
                if number == len(self.steps) - 1:
                    return min(ask.made(self.wanted), key=_cost)
                rest = [k for k in range(len(hand)) if k not in (step.first, step.second)]
                hand = [hand[k] for k in rest] + [step.output]
                options = [options[k] for k in rest]
                options.append(self._made(number, ask, hand, options))
        except PlanError:
            return None
        raise AssertionError("a tree ends with the output")

    def _terms(self, number: int) -> Terms:
        return replace(self.terms, max_flops=self.caps[number])

    def _made(self, number: int, ask: _Ask, hand: list[Tensor], rest: list[list[Reachable]]) -> list[Reachable]:
        """Layouts of an intermediate result; `hand` are the tensors left with it, `rest` the others' layouts."""
        output = ask.output
        made = ask.made(Wanted((None,) * len(output.indices)))
        made += ask.made(Wanted((None,) * len(output.indices), (), True))
        if not self.wide:
            return _fewest(made)[:1]
        following = self.steps[number + 1]
        last = len(hand) - 1
        if last in (following.first, following.second):
            other = following.second if following.first == last else following.first
            goal = self.wanted if number + 2 == len(self.steps) else Wanted((None,) * len(following.output.indices))
            terms = self._terms(number + 1)
            read = _Read(
                output, hand[other], rest[other], following.output, goal, self.sizes, self.mesh, terms, self.budget
            )
            for layout in read.layouts(made):
                made += ask.made(Wanted(layout.dims, layout.unreduced))
        goal_layout = _as_wanted(output, self.steps[-1].output, self.wanted)
        made += ask.made(Wanted(goal_layout.dims))
        return _fewest(made, goal_layout)


def _cost(option: Reachable) -> float:
    return option.cost


def _as_wanted(tensor: Tensor, output: Tensor, wanted: Wanted) -> Layout:
    """An intermediate result divided as the final one is wanted, where they share an index; whole elsewhere.

    Where the operands are whole, every contraction can run in this layout and nothing moves, at the price of work done
    several times.
    """
    asked = {index: dim or () for index, dim in zip(output.indices, wanted.dims, strict=True)}
    return Layout(tuple(asked.get(index, ()) for index in tensor.indices))


def _fewest(options: list[Reachable], always: Layout | None = None) -> list[Reachable]:
    """The cheapest option of every layout, and of those the cheapest few, with one that is always among them."""
    cheapest: dict[Layout, Reachable] = {}
    for option in sorted(options, key=_cost):
        cheapest.setdefault(option.layout, option)
    few = list(cheapest.values())[:LAYOUTS]
    if always in cheapest and cheapest[always] not in few:
        few.append(cheapest[always])
    return few


class _Ask(Struct, frozen=True):
    """Two tensors, the layouts they can have, and what is made of them."""

    pair: tuple[Tensor, Tensor]
    choices: tuple[list[Reachable], list[Reachable]]
    output: Tensor
    sizes: Mapping[str, int]
    mesh: Mesh
    terms: Terms
    budget: Budget

    def made(self, wanted: Wanted) -> list[Reachable]:
        """The result in the wanted layout, from every choice of the operands' layouts while there is work left."""
        result: list[Reachable] = []
        for first in self.choices[0]:
            for second in self.choices[1]:
                if result and self.budget.over:
                    return result
                terms = replace(self.terms, effort=self.budget.effort)
                layouts = (first.layout, second.layout)
                found = plan_pair(self.pair, layouts, self.output, wanted, self.sizes, self.mesh, terms)
                self.budget.spend(found.work)
                cost = float(found.received) if found.seconds is None else found.seconds
                steps = (*first.steps, *second.steps, *found.plan.steps)
                result.append(Reachable(found.plan.output_layout, first.cost + second.cost + cost, steps))
        return result


class _Read(Struct, frozen=True):
    """An intermediate result, the other operand of the einsum that reads it next, and what that einsum makes."""

    tensor: Tensor
    other: Tensor
    others: list[Reachable]
    output: Tensor
    wanted: Wanted
    sizes: Mapping[str, int]
    mesh: Mesh
    terms: Terms
    budget: Budget

    def layouts(self, made: list[Reachable]) -> list[Layout]:
        """The layouts in which the next einsum would read the result if it comes in one of some layouts."""
        result: dict[Layout, None] = {}
        for option in _fewest(made):
            if self.budget.over:
                break
            layouts = (option.layout, self.others[0].layout)
            terms = replace(self.terms, effort=self.budget.effort)
            pair = (self.tensor, self.other)
            found = plan_pair(pair, layouts, self.output, self.wanted, self.sizes, self.mesh, terms)
            self.budget.spend(found.work)
            for step in found.plan.steps:
                if isinstance(step, LocalEinsum):
                    for operand, layout in zip(step.inputs, step.layouts, strict=True):
                        if operand.name == self.tensor.name and layout != option.layout:
                            result[layout] = None
        return list(result)
