"""A statement of a program planned freely: from where its operands rest to where its result rests, as is cheapest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from einscale.layout import Layout
from einscale.mesh import Mesh
from einscale.planner.einsum import PlannedEinsum, plan_einsum
from einscale.planner.question import Wanted
from einscale.program.values import Statement, Value
from einscale.vocabulary import BYTES, TIME

if TYPE_CHECKING:
    from einscale.topology import Network


def plan_statement_freely(
    statement: Statement,
    table: Mapping[str, Value],
    resting: Mapping[str, Layout],
    sizes: Mapping[str, int],
    mesh: Mesh,
    network: Network | None,
) -> PlannedEinsum:
    """Cheapest plan of one einsum statement, whatever the compute table says.

    Args:
        statement: an einsum.
        table: value name -> value.
        resting: value name -> the layout it rests in.
        sizes: axis name -> size.
        mesh: the devices.
        network: links to price by time; without it, by bytes.
    """
    tensors = tuple(
        table[name].labelled(labels) for name, labels in zip(statement.inputs, statement.labels[:-1], strict=True)
    )
    output = table[statement.output].labelled(statement.labels[-1])
    layouts = tuple(resting[name] for name in statement.inputs)
    wanted = resting[statement.output]
    known = {**sizes, **label_sizes(statement, table, sizes)}
    return plan_einsum(
        tensors,
        layouts,
        output,
        Wanted(wanted.dims, wanted.unreduced),
        known,
        mesh,
        network=network,
        objective=BYTES if network is None else TIME,
    )


def label_sizes(statement: Statement, table: Mapping[str, Value], sizes: Mapping[str, int]) -> dict[str, int]:
    """Size of each label: of the axis it reads, by position."""
    found: dict[str, int] = {}
    for name, labels in zip(statement.inputs, statement.labels[:-1], strict=True):
        found |= {label: sizes[axis] for label, axis in zip(labels, table[name].axes, strict=True)}
    return found
