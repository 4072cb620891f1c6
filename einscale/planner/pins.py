"""Layouts that a caller gives values of a program, checked."""

from __future__ import annotations

from collections.abc import Mapping

from einscale.errors import LayoutError, did_you_mean
from einscale.layout import Layout, check_layout
from einscale.mesh import Mesh
from einscale.program.values import Program


def check_pins(pinned: Mapping[str, Layout], program: Program, mesh: Mesh) -> None:
    """Raise unless every pinned layout is one of its value on the mesh.

    Args:
        pinned: value -> the layout it is to have.
        program: whose values they are.
        mesh: the devices.

    Raises:
        LayoutError: no such value, another number of dims, or mesh axes that are none.
    """
    for name, layout in pinned.items():
        value = program.table.get(name)
        if value is None:
            hint = did_you_mean(name, program.table, "the values are")
            raise LayoutError(f"a layout is given for `{name}`, which the program does not have", hint=hint)
        if len(layout.dims) != len(value.axes):
            raise LayoutError(f"`{name}` has {len(value.axes)} dims and its layout {len(layout.dims)}")
        check_layout(layout, mesh, f"`{name}`")
