"""`einscale.collective`: one collective on its own -> its time by algorithm, latency, and what each device receives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from einscale.api.answer import Answer, DeviceMemory, Figure
from einscale.errors import UsageError
from einscale.hardware import DEFAULT_SYSTEM, System, load_system
from einscale.mesh import Mesh, make_mesh
from einscale.topology import Alone, bind, group_axes, move_name, price_alone
from einscale.units import check_size, parse_size

if TYPE_CHECKING:
    from einscale.report.table import Report
    from einscale.topology import Algorithm


class CollectiveResult(Answer, frozen=True):
    """One collective on its own, per device.

    Args:
        alone: what it is and what it costs.
    """

    BARS: ClassVar[tuple[str, ...]] = ("algorithms",)

    alone: Alone

    @property
    def kind(self) -> str:
        """Its name: `all-gather`, `reduce-scatter`, `all-reduce`, `all-to-all` or `permute`."""
        return self.alone.kind

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes that make a group, major to minor."""
        return self.alone.axes

    @property
    def devices(self) -> int:
        """Devices of one group."""
        return self.alone.devices

    @property
    def mesh(self) -> Mesh:
        """All devices."""
        return self.alone.network.mesh

    @property
    def system(self) -> System:
        """The hardware it is priced on."""
        return self.alone.network.system

    @property
    def bytes_received(self) -> int:
        """Bytes a device receives, rounded up."""
        return self.alone.received

    @property
    def seconds(self) -> float:
        """Modelled time, by the formula that plans are priced with."""
        return self.alone.seconds

    @property
    def memory(self) -> DeviceMemory:
        """Bytes of a device before and after the move, both there while it runs: it does not work in place."""
        return DeviceMemory((("before", self.alone.held), ("after", self.alone.after)))

    @property
    def figures(self) -> dict[str, Figure]:
        """Time and bytes of a device."""
        return {
            "seconds": self.seconds,
            "latency_seconds": self.latency_seconds,
            "received_bytes": self.bytes_received,
            "memory_bytes": self.memory.needed,
            "devices": self.devices,
        }

    @property
    def latency_seconds(self) -> float:
        """The part of `seconds` that does not depend on the bytes."""
        return self.alone.priced.alpha if self.alone.priced else 0.0

    @property
    def bandwidth_seconds(self) -> float:
        """The part of `seconds` that grows with the bytes."""
        return self.alone.priced.beta * self.alone.held if self.alone.priced else 0.0

    @property
    def bandwidth_bound_bytes(self) -> float:
        """Bytes of the whole array at which latency is half of the time: larger arrays are bandwidth-bound."""
        return self.alone.even_bytes(self.alone.priced) if self.alone.priced else 0.0

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Ways to run it on the same links, the one that plans are priced with first."""
        return self.alone.algorithms

    def algorithm(self, name: str) -> Algorithm:
        """One of the algorithms by its name.

        Raises:
            UsageError: there is none of that name for this group.
        """
        from einscale.errors import did_you_mean

        for way in self.algorithms:
            if way.name == name:
                return way
        names = [way.name for way in self.algorithms]
        raise UsageError(f"no algorithm here is called `{name}`", hint=did_you_mean(name, names, "there are"))

    def to_report(
        self, *, detail: bool = False, explain: bool = False, advice: bool = True, units: str = "iec"
    ) -> Report:
        """The answer as tables; there is nothing that the short report leaves out."""
        from einscale.report.collective import collective_report

        return collective_report(self.alone, units)

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain values for JSON: exact ints, base units, every input resolved."""
        from einscale.report.collective import collective_document

        return collective_document(self.alone)

    @property
    def headline(self) -> tuple[str, str]:
        """What moves, and what that takes."""
        from einscale.units import format_bytes, format_seconds

        what = f"{self.kind} of {format_bytes(self.alone.whole)} over {','.join(self.axes)}"
        return what, f"{format_seconds(self.seconds)}, {format_bytes(self.bytes_received)} received"


def collective(
    kind: str,
    size: int | str = "1GiB",
    *,
    mesh: Mesh | str | Mapping[str, int],
    axes: str | Iterable[str] | None = None,
    hardware: str | Path | System | None = None,
) -> CollectiveResult:
    """Price one collective on its own.

    `size` is V, the bytes of the whole array of one group. Before an all-gather, an all-to-all or a permute each of the
    n devices holds V/n of it; before a reduce-scatter or an all-reduce each holds V, a sum of its own.

    >>> answer = collective("all-reduce", "1GiB", mesh="data=8,model=8", axes="model", hardware="h100")
    >>> answer.devices, answer.bytes_received, f"{answer.seconds * 1e3:.2f} ms"
    (8, 1879048192, '5.09 ms')

    Args:
        kind: `all-gather`, `reduce-scatter`, `all-reduce`, `all-to-all` or `permute`, in any usual spelling.
        size: bytes of the whole array of one group: an int, or text such as `64MiB`.
        mesh: its axes, major to minor: `"x=2,y=4"`, a mapping of names to sizes, or a `Mesh`.
        axes: the mesh axes that make a group, `"data,model"` or several names; all of them where none is named.
        hardware: name of a system, path of a system's TOML file, or a `System`; the default is `DEFAULT_SYSTEM`.

    Raises:
        UsageError: no such collective, or an argument of another type.
        SizeError: the bytes are not a whole number, not positive or absurd.
        MeshError, NotationError, HardwareError: the mesh, its axes or the hardware cannot be understood.
    """
    if not isinstance(kind, str):
        raise UsageError(f"the collective must be text, not {type(kind).__name__}", expected="for example 'all-reduce'")
    if not isinstance(mesh, (str, Mapping, Mesh)):
        raise UsageError(f"the mesh must be text, a mapping or a Mesh, not {type(mesh).__name__}")
    if not isinstance(hardware, (str, Path, System, type(None))):
        raise UsageError(f"the hardware must be a name, a path or a System, not {type(hardware).__name__}")
    move = move_name(kind)
    what = "number of bytes"
    whole = parse_size(size, what) if isinstance(size, str) else check_size(size, what)
    devices = make_mesh(mesh)
    group = group_axes(_joined(axes, devices), devices)
    system = hardware if isinstance(hardware, System) else load_system(hardware or DEFAULT_SYSTEM)
    return CollectiveResult(price_alone(move, whole, group, bind(devices, system)))


def _joined(axes: str | Iterable[str] | None, mesh: Mesh) -> str:
    """The names of axes as one text."""
    if axes is None:
        return ",".join(mesh.names)
    if isinstance(axes, str):
        return axes
    names = list(axes) if isinstance(axes, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise UsageError("axes must be names of mesh axes", expected="for example 'data,model' or ('data', 'model')")
    return ",".join(names)
