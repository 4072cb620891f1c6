"""`einscale.plan`: one sharded einsum -> the cheapest collectives for it, explained, bounded, proven, priced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace

from einscale.api.answer import Answer, Figure
from einscale.dtypes import dtype as canonical_dtype
from einscale.errors import PlanError, SizeError, UsageError, did_you_mean
from einscale.hardware import DEFAULT_SYSTEM, System, load_system
from einscale.layout import Layout
from einscale.mesh import Mesh, make_mesh
from einscale.notation import parse_spec
from einscale.planner.budget import Budget
from einscale.planner.einsum import PlannedEinsum, plan_einsum
from einscale.price.plan import LowerBounds, PlanPeak, PricedPlan, PricedStep, lower_bounds, price_plan
from einscale.request.einsum import AskedEinsum, resolve, wanted_choices
from einscale.steps import Plan
from einscale.topology import Network, bind
from einscale.vocabulary import BYTES, Goal

if TYPE_CHECKING:
    from einscale.emulate import Verification
    from einscale.price.alternatives import Alternative, Avoidance
    from einscale.report.einsum.tables import PlanView
    from einscale.report.table import Report

OBJECTIVES = tuple(Goal)


class PlanResult(Answer, frozen=True):
    """The answer to one question, per device: what runs, what it costs, and why.

    Args:
        spec: the question in canonical notation, the layout of its output filled in.
        priced: the plan with the price of every step.
        lower_bound: least bytes a device must receive, for this placement and for any layout.
        objective: what was made least: `time` or `bytes`.
        max_flops: the cap on FLOPs per device, if one was given.
        exact: whether the search was complete, so that no cheaper plan exists among those it knows.
        note: where the search was cut short, what that means; "" otherwise.
        asked: the question resolved.
        proof: of the plan, if it was asked for; its `sizes` are those at which it was run.
    """

    BARS: ClassVar[tuple[str, ...]] = ("steps", "memory")

    spec: str
    priced: PricedPlan
    lower_bound: LowerBounds
    objective: Goal
    max_flops: int | None
    exact: bool
    note: str
    asked: AskedEinsum
    proof: Verification | None = None

    @property
    def plan(self) -> Plan:
        """The steps as frozen values that know no sizes."""
        return self.priced.plan

    @property
    def steps(self) -> tuple[PricedStep, ...]:
        """The steps with their prices, in order."""
        return self.priced.steps

    @property
    def sizes(self) -> dict[str, int]:
        """Index -> size."""
        return dict(self.asked.sizes)

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        return self.asked.mesh

    @property
    def system(self) -> System:
        """The hardware it is priced on."""
        return self.priced.network.system

    @property
    def flops(self) -> int:
        """FLOPs a device spends, padding included."""
        return self.priced.flops

    @property
    def bytes_received(self) -> int:
        """Bytes a device receives: the exact total over the mesh by its devices, rounded up once."""
        return self.priced.bytes_received

    @property
    def memory(self) -> PlanPeak:
        """Most bytes a device holds at once: operands, result and temporaries."""
        return self.priced.memory

    @property
    def memory_bytes(self) -> int:
        """The same as a number of bytes."""
        return self.priced.memory.peak

    @property
    def seconds(self) -> float:
        """Modelled time of all steps, one after the other."""
        return self.priced.seconds

    @property
    def figures(self) -> dict[str, Figure]:
        """Time, bytes, FLOPs and memory of a device."""
        return {
            "seconds": self.seconds,
            "received_bytes": self.bytes_received,
            "flops": self.flops,
            "memory_bytes": self.memory_bytes,
            "steps": len(self.steps),
            "exact": self.exact,
        }

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The best plans whose work is divided otherwise, priced; worked out when asked for."""
        from einscale.price.alternatives import alternatives

        return alternatives(self.priced, self.objective)

    @property
    def avoidances(self) -> tuple[Avoidance, ...]:
        """For each tensor that moves, the change of its layout after which it need not; worked out when asked for."""
        from einscale.api.avoid import avoidances

        return avoidances(self)

    def verify(self, seed: int = 0) -> Verification:
        """Run the plan on an emulated mesh, at sizes shrunk so that every division stays what it is.

        Args:
            seed: of the operands' values.

        Returns:
            what was run and counted.

        Raises:
            VerificationError: the result is not the einsum's, or a step moves other bytes than it claims.
        """
        from einscale.emulate import verify_plan

        return verify_plan(self.plan, self.asked.sizes, self.mesh, seed=seed)

    def view(self) -> PlanView:
        """What a report shows beside the prices."""
        from einscale.report.einsum.tables import PlanView

        notes = [f"note: {self.note}"] if self.note else []
        notes += [str(self.proof)] if self.proof is not None else []
        return PlanView(self.spec, self.objective, self.max_flops, self.exact, self.lower_bound, tuple(notes))

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """The answer as tables; arguments as for `Answer.to_report`.

        `detail` adds what memory holds; `explain` adds formulas, alternatives, and how to avoid what moves.
        """
        from einscale.report.einsum.tables import explain_report, plan_report

        if explain:
            avoidances = self.avoidances if advice else ()
            return explain_report(self.priced, self.view(), self.alternatives, avoidances, units, detail=detail)
        return plan_report(self.priced, self.view(), units, detail=detail)

    def explain(self, *, width: int | None = None, units: str = "iec") -> str:
        """Every step with its cause and its formulas filled in, how to avoid what moves, and alternatives priced.

        Args:
            width: columns to wrap at; None does not wrap.
            units: `iec` or `si`.
        """
        return self.to_text(explain=True, width=width, units=units)

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved.

        Args:
            explain: with formulas in words, alternatives and how to avoid what moves.
        """
        from einscale.report.einsum.document import explanation, plan_document, verification

        document = plan_document(self.priced, self.view())
        if explain:
            document |= explanation(self.priced, self.alternatives, self.avoidances)
        if self.proof is not None:
            document |= verification(self.proof)
        return document

    @property
    def headline(self) -> tuple[str, str]:
        """The question, and what a device spends."""
        from einscale.units import format_bytes, format_flops, format_seconds

        spent = f"{format_seconds(self.seconds)}, {format_bytes(self.bytes_received)} received"
        return repr(self.spec), f"{spent}, {format_flops(self.flops)} in {len(self.steps)} steps"


def plan(
    spec: str,
    *,
    mesh: Mesh | str | Mapping[str, int],
    sizes: Mapping[str, int] | None = None,
    dtype: str = "bf16",
    hardware: str | Path | System | None = None,
    objective: str = "time",
    max_flops: int | None = None,
    syntax: str | None = None,
    rules: str | Mapping[str, str | Iterable[str] | None] | None = None,
    verify: bool = False,
) -> PlanResult:
    """Plan one sharded einsum: which collectives must run, and what that costs each device.

    >>> answer = plan("B/x D, D/x F -> B/x F", mesh="x=4", sizes={"B": 64, "D": 128, "F": 256})
    >>> [str(step.step) for step in answer.steps][0]
    'all-gather(x) rhs: D/x F -> D F'
    >>> answer.bytes_received, answer.flops
    (49152, 1048576)

    Args:
        spec: the einsum with layouts, in slash notation or another dialect: docs/notation.md.
        mesh: its axes, major to minor: `"x=2,y=4"`, a mapping of names to sizes, or a `Mesh`.
        sizes: index -> size; those written in the spec (`B=32/x`) need not be repeated.
        dtype: element type of tensors that name none.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.
        objective: `time` on the hardware, or `bytes` received.
        max_flops: most FLOPs a device may spend. Without it `bytes` allows the least attainable; `time` weighs them.
        syntax: the dialect of the spec where it cannot be told.
        rules: index -> mesh axes, for axes written without a slash: `"B=data,F=model"` or a mapping.
        verify: also prove the plan on an emulated mesh; `proof` of the answer says at which sizes.

    Raises:
        NotationError, MeshError, LayoutError, SizeError, HardwareError, UsageError: an argument cannot be understood.
        PlanError: no plan answers the question, for example because of `max_flops`.
        VerificationError: the plan is not what it claims.
    """
    _check_kind(spec, str, "the spec must be text", "an einsum such as 'B/x D, D F -> B/x F'")
    _check_kind(mesh, (str, Mapping, Mesh), "the mesh must be text, a mapping or a Mesh", "for example 'x=2,y=4'")
    _check_kind(sizes, (Mapping, type(None)), "sizes must map an index to its size", "for example {'B': 4096}")
    _check_kind(dtype, str, "the dtype must be text", "for example 'bf16'")
    _check_kind(
        hardware,
        (str, Path, System, type(None)),
        "the hardware must be a name, a path or a System",
        "for example 'h100'",
    )
    if objective not in OBJECTIVES:
        raise UsageError(
            f"unknown objective `{objective}`", hint=did_you_mean(str(objective), OBJECTIVES, "objectives")
        )
    _check_cap(max_flops)
    devices = make_mesh(mesh)
    sizes_of_axes = [axis.size for axis in devices.axes]
    parsed = parse_spec(spec, syntax=syntax, mesh_axes=devices.names, mesh_sizes=sizes_of_axes, rules=rules)
    asked = resolve(parsed, devices, sizes or {}, canonical_dtype(dtype))
    system = hardware if isinstance(hardware, System) else load_system(hardware or DEFAULT_SYSTEM)
    found = answer(asked, bind(devices, system), objective, max_flops)
    return replace(found, proof=found.verify()) if verify else found


def answer(
    asked: AskedEinsum,
    network: Network,
    objective: str,
    max_flops: int | None,
    layouts: tuple[Layout, ...] | None = None,
) -> PlanResult:
    """Plan and price a resolved question.

    Args:
        asked: the question.
        network: the mesh bound to the links of a system.
        objective: `time` or `bytes`.
        max_flops: most FLOPs a device may spend.
        layouts: of the operands, if others than asked.
    """
    planned = _planned(asked, network, objective, max_flops, layouts or asked.layouts)
    priced = price_plan(planned.plan, asked.sizes, network)
    layout = planned.plan.output_layout
    filled = asked.spec.with_output(layout.dims, layout.unreduced, layout.reduction)
    return PlanResult(
        spec=str(filled),
        priced=priced,
        lower_bound=lower_bounds(priced),
        objective=Goal(objective),
        max_flops=max_flops,
        exact=planned.exact,
        note=planned.note,
        asked=asked,
    )


def _planned(
    asked: AskedEinsum, network: Network, objective: str, max_flops: int | None, layouts: tuple[Layout, ...]
) -> PlannedEinsum:
    """The cheapest plan over every layout that the wanted one leaves open."""
    best: PlannedEinsum | None = None
    exact, note = True, ""
    choices = list(wanted_choices(asked))
    budget = Budget(max(1, len(choices)))
    for wanted in choices:
        planned = plan_einsum(
            asked.tensors,
            layouts,
            asked.output,
            wanted,
            asked.sizes,
            asked.mesh,
            network=network,
            objective=objective,
            max_flops=max_flops,
            effort=budget.effort,
        )
        exact, note = exact and planned.exact, note or planned.note
        if best is None or _cost(planned, objective) < _cost(best, objective):
            best = planned
    if best is None:
        raise PlanError("the output leaves no layout to choose from")
    return replace(best, exact=exact, note=note)


def _cost(planned: PlannedEinsum, objective: str) -> tuple[float, int, int]:
    """What a plan costs by the objective, then what it costs otherwise."""
    first: float = planned.received if objective == BYTES else (planned.seconds or 0.0)
    return first, planned.received, planned.flops


def _check_kind(value: object, kinds: type | tuple[type, ...], message: str, expected: str) -> None:
    """Raise unless a value is of one of the kinds."""
    if not isinstance(value, kinds):
        raise UsageError(f"{message}, not {type(value).__name__}", expected=expected)


def _check_cap(max_flops: int | None) -> None:
    """Raise unless the cap on FLOPs is a number of FLOPs."""
    if max_flops is None:
        return
    if isinstance(max_flops, bool) or not isinstance(max_flops, int):
        raise SizeError(f"max_flops must be a whole number of FLOPs, not {max_flops!r}")
    if max_flops < 0:
        raise SizeError(f"max_flops must not be negative: {max_flops}")
