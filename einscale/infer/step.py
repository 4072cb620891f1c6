"""One pass of new tokens through a model, planned and priced: prefill and decode are such passes."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from msgspec.structs import replace

from einscale.collectives import PERMUTE
from einscale.cost import PricedStatement, price_program
from einscale.errors import StrategyError
from einscale.infer.instance import stage_layers
from einscale.infer.values import AxisTime, Instance, KindStep, Spent, StepReport
from einscale.kernels import kernels_of
from einscale.layout import local_bytes, shards
from einscale.mesh import split_name
from einscale.models import LayerKind
from einscale.plan import work_reads, work_results
from einscale.planner.fusion import never_written
from einscale.planner.planned import PlannedProgram
from einscale.planner.program import plan_program
from einscale.precision import Precision
from einscale.program.cache import KEYS, SEQUENCE, cached_values, decode_program, window
from einscale.program.shapes import CACHING, program_sizes
from einscale.program.typed import typed
from einscale.program.values import Program
from einscale.stages import HEAD, LAYER
from einscale.strategy import Strategy, bind_strategy
from einscale.topology import Network, coefficients


def serving_program(layer: LayerKind, precision: Precision, *, absorbed: bool) -> Program:
    """The program of new tokens beside a cache, in the element types of a precision.

    Where decoding has a program of its own (attention on latents) both read and write the same cache: the ordinary
    program then makes keys and values from it again.

    Args:
        layer: a kind of layer.
        precision: element types; what is appended to rests in its `kv_cache` type.
        absorbed: take the program that decoding has of its own.
    """
    keep: tuple[str, ...] = ()
    program = layer.program
    if layer.decode is not None:
        keep = cached_values(layer.decode)
        program = layer.decode if absorbed else layer.program
    serving = typed(decode_program(program, keep), precision)
    caches = {n for s in serving.statements if s.op == "append" for n in (s.inputs[0], s.output)}
    values = tuple(replace(v, dtype=precision.kv_cache) if v.name in caches else v for v in serving.values)
    return replace(serving, values=values)


def keys_seen(program: Program, new: int, cached: int) -> int:
    """Tokens that new tokens look back at, themselves among them: of those cached, a window's at most.

    >>> from einscale.models import load_model
    >>> windowed = load_model("gemma2-9b").layer("window_block").program  # 4096 tokens
    >>> [keys_seen(windowed, *sizes) for sizes in ((1, 100), (1, 9000), (64, 9000))]
    [101, 4096, 4159]
    """
    span = window(program)
    return (min(cached, span - 1) if span else cached) + new


class Planner:
    """Plans of an instance, each made once: one serves every batch and context that divide over the mesh as its own."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.network = instance.timed_by
        self.bound = bind_strategy(instance.strategy, instance.mesh)
        self.stages = stage_layers(instance.model, instance.stages)
        self.programs: dict[tuple[str, bool], Program] = {}
        self.plans: dict[tuple[str, bool, int, tuple[int, ...]], PlannedProgram] = {}
        self.ways = {axis: self._ways(axis) for axis in ("b", KEYS)}

    def _ways(self, index: str) -> int:
        """Most ways any rule divides an axis."""
        rules = (*self.bound.compute, *(rule for _, table in self.bound.store for rule in table))
        axes = dict.fromkeys(axis for rule in rules if rule.index == index for axis in rule.axes)
        return int(shards(axes, self.instance.mesh.degrees))

    def program(self, layer: LayerKind, absorbed: bool) -> Program:
        """Program of new tokens of a kind of layer."""
        key = (layer.kind, absorbed)
        if key not in self.programs:
            self.programs[key] = serving_program(layer, self.instance.precision, absorbed=absorbed)
        return self.programs[key]

    def plan(self, layer: LayerKind, batch: int, new: int, cached: int, *, absorbed: bool) -> PlannedProgram:
        """Planned program of a kind of layer.

        Raises:
            StrategyError: the strategy divides a step of so few tokens, or the batch, more ways than it has elements.
        """
        instance = self.instance
        program = self.program(layer, absorbed)
        keys = keys_seen(program, new, cached)
        counts = ((batch, self.ways["b"]), (keys, self.ways[KEYS]))
        key = (layer.kind, absorbed, new, tuple(part for n, ways in counts for part in (min(n, ways), gcd(n, ways))))
        sizes = {"b": batch, SEQUENCE: new, KEYS: keys}
        planned = self.plans.get(key)
        if planned is None:
            every = program_sizes(program, defaults=sizes)
            strategy = self._strategy(layer.kind, new)
            planned = plan_program(program, strategy, instance.mesh, every, network=self.network)
            self.plans[key] = planned
        return replace(planned, sizes={**planned.sizes, **{k: v for k, v in sizes.items() if k in planned.sizes}})

    def _strategy(self, kind: str, new: int) -> Strategy:
        """The strategy as it divides a step of so few tokens: rules that divide the sequence further do not hold."""
        whole = []
        for rule in self.bound.compute:
            if rule.index == SEQUENCE and new < (ways := int(shards(rule.axes, self.instance.mesh.degrees))):
                if not rule.scope and kind != HEAD:
                    raise StrategyError(
                        f"strategy `{self.bound.name}` divides the tokens of a sequence {ways} ways over"
                        f" {'/'.join(rule.axes)}, and a step has {new} of each",
                        expected="a strategy that divides what is cached, such as split-kv: `attention:t = context`",
                    )
                whole.append(replace(rule, index=LAYER))
            else:
                whole.append(rule)
        return replace(self.bound, compute=tuple(whole))

    def step(
        self, batch: int, new: int, cached: int, *, logits: int | None = None, absorbed: bool = True
    ) -> StepReport:
        """Price one pass of new tokens.

        Args:
            batch: sequences.
            new: new tokens of each.
            cached: tokens of each in the cache.
            logits: tokens of each whose logits are wanted, the last ones; by default of every new one.
            absorbed: decode with programs of its own where a layer has them.
        """
        plans = self.all_plans(batch, new, cached, logits=logits, absorbed=absorbed)
        kinds = [self._kind(layer, plans[layer.kind]) for layer in self.instance.model.layers if layer.kind in plans]
        spent = Spent()
        for kind in kinds:
            spent = spent.plus(kind.spent.times(kind.repeat))
        return StepReport(batch, new, cached, tuple(kinds), self.stages, self._hop(kinds), spent)

    def all_plans(
        self, batch: int, new: int, cached: int, *, logits: int | None = None, absorbed: bool = True
    ) -> dict[str, PlannedProgram]:
        """Planned programs of every kind of layer that a pass runs; arguments as for `step`."""
        wanted = new if logits is None else logits
        counts = {layer.kind: wanted if layer.kind == HEAD else new for layer in self.instance.model.layers}
        return {
            layer.kind: self.plan(layer, batch, counts[layer.kind], cached, absorbed=absorbed)
            for layer in self.instance.model.layers
            if counts[layer.kind]
        }

    def _kind(self, layer: LayerKind, planned: PlannedProgram) -> KindStep:
        instance = self.instance
        rows = price_program(planned, self.network, instance.precision, instance.execution, causal=True)
        spent = Spent()
        for kernel in kernels_of(planned.structure, instance.precision, instance.execution):
            spent = spent.plus(kernel_spent([rows[number] for number in kernel.members], planned))
        spent = replace(spent, network=axis_times(rows, self.network))
        launched = sum(row.local.kernels for row in rows)
        return KindStep(layer.kind, layer.repeat, planned, rows, spent, launched)

    def _hop(self, kinds: Iterable[KindStep]) -> float:
        """Time of the residual stream to the next pipeline stage, as it rests."""
        instance = self.instance
        if not instance.pipe:
            return 0.0
        alpha, beta = coefficients(PERMUTE, (instance.pipe,), self.network)
        sent = max(stream_bytes(kind.planned) for kind in kinds if kind.kind != HEAD)
        return float(alpha + beta * sent)

    def back_seconds(self) -> float:
        """Time of a token from the last pipeline stage back to the first: a message whose bytes do not count."""
        if not self.instance.pipe:
            return 0.0
        return float(coefficients(PERMUTE, (self.instance.pipe,), self.network)[0])


def stream_bytes(planned: PlannedProgram) -> int:
    """Bytes on one device of a layer's first result, what the next layer reads."""
    value = planned.program.table[planned.program.outputs[0]]
    return int(local_bytes(value.tensor, planned.resting[value.name], planned.sizes, planned.degrees))


def kernel_spent(rows: list[PricedStatement], planned: PlannedProgram) -> Spent:
    """Where the time of one kernel goes, and of the one that converts its operands before it."""
    converting = sum(converting_seconds(row) for row in rows)
    seconds = sum(float(row.local.seconds) for row in rows) - converting
    compute = sum(float(row.local.compute_seconds) for row in rows)
    memory = sum(float(row.local.memory_seconds) for row in rows) - converting
    work = min(seconds, max(compute, memory))
    if compute >= memory and compute:
        return Spent(compute=work, activations=converting, launch=seconds - work)
    weights, cache, other = traffic_parts(rows, planned)
    every = weights + cache + other
    if not every:
        return Spent(activations=work + converting, launch=seconds - work)
    other_seconds = work * other / every + converting
    return Spent(work * weights / every, work * cache / every, other_seconds, launch=seconds - work)


def converting_seconds(row: PricedStatement) -> float:
    """Time of the kernel that converts the operands of a product to a narrower type, its start left out."""
    return float(row.local.memory_seconds) * row.local.converted / row.traffic if row.local.converted else 0.0


def traffic_parts(rows: list[PricedStatement], planned: PlannedProgram) -> tuple[int, int, int]:
    """Bytes one kernel reads and writes: of weights, of caches, of everything else; converting operands left out."""
    written = sum(row.traffic for row in rows if row.planned.statement.op in CACHING)
    rows = [row for row in rows if row.planned.statement.op not in CACHING]
    every = sum(row.traffic - row.local.converted for row in rows)
    inside = never_written(planned.structure)
    table = planned.program.table
    touched = {
        tensor.name: int(local_bytes(tensor, layout, planned.sizes, planned.degrees))
        for row in rows
        for tensor, layout in (*work_reads(row.planned.work), *work_results(row.planned.work))
        if tensor.name not in inside
    }
    cache = min(every, sum(size for name, size in touched.items() if table[name].kind == "cache"))
    if not any(table[name].kind == "parameter" for name in touched):
        return 0, written + cache, every - cache
    other = sum(size for name, size in touched.items() if table[name].kind not in ("cache", "parameter"))
    weights = max(0, every - cache - other)
    return weights, written + cache, every - cache - weights


def axis_times(rows: Iterable[PricedStatement], network: Network) -> tuple[AxisTime, ...]:
    """Collectives by the mesh axes they run over."""
    found: dict[str, AxisTime] = {}
    for row in rows:
        for priced in row.collectives:
            if not priced.bytes:
                continue
            axes = "/".join(dict.fromkeys(split_name(axis)[0] for axis in priced.step.axes))
            alpha, _ = coefficients(priced.step.kind, priced.step.axes, network)
            before = found.get(axes, AxisTime(axes, 0.0, 0.0, 0.0, 0.0))
            found[axes] = AxisTime(
                axes,
                before.seconds + priced.exposed_seconds,
                before.latency_seconds + min(alpha, priced.exposed_seconds),
                before.bytes + priced.bytes,
                before.count + 1,
            )
    return tuple(found.values())
