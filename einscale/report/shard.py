"""Who holds which part of a tensor: pictures of the mesh and of the tensor, tables, and the document."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from einscale.placement import Part, Placement, Slice, total
from einscale.report.document import head
from einscale.report.render.grid import Cell, Line, draw_grid
from einscale.report.table import Column, Picture, Report, Row, Table
from einscale.topology import level_counts
from einscale.units import format_bytes

if TYPE_CHECKING:
    from einscale.placed import PlacedTensor

MOST_SLICES = 4
"""Pictures of one tensor at most: of what two dims do not show."""

MOST_NAMED = 4
"""Devices, or runs of them, that a cell names."""

MOST_SIGNS = 26
"""Signs in a cell at most, so that two cells and a label fit into 80 columns."""

DIMS = (
    Column("dim", "dim"),
    Column("size", "size", "integer"),
    Column("axes", "divided over"),
    Column("parts", "parts", "integer"),
    Column("local_size", "a device", "integer"),
    Column("padding", "padding", "integer"),
)
DEVICES = (
    Column("device", "device", "integer"),
    Column("coordinates", "on the mesh"),
    Column("part", "holds", wrap=True),
    Column("elements", "elements", "integer"),
    Column("padding_elements", "padding", "integer"),
    Column("stored_bytes", "stored", "bytes"),
    Column("copies", "copies", "integer"),
    Column("summed_over", "parts of a sum", "integer"),
)


def shard_report(answer: PlacedTensor, *, detail: bool = False, units: str = "iec") -> Report:
    """Pictures of the mesh and of the tensor, its dims, and what is said of copies, sums and padding.

    Args:
        answer: from `einscale.shard`.
        detail: also every device.
        units: `iec` or `si`.
    """
    placement = answer.placement
    called = f"{answer.name}: " if answer.name else ""
    on = f" of {answer.network.system.name}" if answer.network is not None else ""
    tables = [Table("dims", "dims of the tensor", DIMS, _dim_rows(placement))]
    if detail:
        tables.append(Table("devices", "devices", DEVICES, _device_rows(answer)))
    return Report(
        heading=(
            f"{called}{answer.spec}",
            f"{answer.dtype} on mesh {answer.mesh}: {_counted(answer.mesh.devices, 'device')}{on}",
        ),
        tables=tuple(tables),
        summary=_summary(answer, units),
        conventions=_conventions(placement),
        pictures=(_mesh_picture(answer), *_tensor_pictures(answer)),
        main="devices",
    )


def _mesh_picture(answer: PlacedTensor) -> Picture:
    """The numbers of the devices: the fastest axis across, the others down, and what connects them."""
    mesh = answer.mesh
    *outer, last = mesh.axes
    places = list(product(*(range(axis.size) for axis in outer)))
    down = [", ".join(f"{axis.name} {here}" for axis, here in zip(outer, place, strict=True)) for place in places]
    across = [f"{last.name} {number}" for number in range(last.size)]
    cells = [[Cell(str(row * last.size + column), -1) for column in range(last.size)] for row in range(len(places))]
    links = tuple(((line, ""),) for line in _link_lines(answer))
    return Picture("the mesh: numbers of the devices", draw_grid(down, across, cells, ruled=False) + links)


def _link_lines(answer: PlacedTensor) -> list[str]:
    """What connects the devices along each axis."""
    if answer.network is None:
        return []
    return [
        f"{axis['axis']}={axis['size']}: "
        + (", ".join(f"{level['devices']} on {level['level']}" for level in axis["levels"]) or "one device")
        for axis in _axes(answer)
    ]


def _axes(answer: PlacedTensor) -> list[dict[str, Any]]:
    """Each mesh axis with the levels of the network it lies on, fast to slow."""
    mesh, network = answer.mesh, answer.network
    found: list[dict[str, Any]] = []
    for number, axis in enumerate(mesh.axes):
        levels: list[dict[str, Any]] = []
        if network is not None:
            counts = level_counts((axis.name,), network)
            pairs = zip(network.system.levels, counts, strict=True)
            levels = [{"level": level.name, "devices": count} for level, count in pairs if count > 1]
        stride = prod(other.size for other in mesh.axes[number + 1 :])
        found.append({"axis": axis.name, "size": axis.size, "stride": stride, "levels": levels})
    return found


def _tensor_pictures(answer: PlacedTensor) -> list[Picture]:
    """The drawn dims as a grid, once for each part of the other dims that are divided."""
    placement, drawn = answer.placement, answer.drawn
    numbers = [placement.indices.index(name) for name in drawn]
    others = [number for number, count in enumerate(placement.counts) if count > 1 and number not in numbers]
    slices: dict[tuple[int, ...], list[tuple[int, Part]]] = {}
    for color, part in enumerate(placement.parts):
        slices.setdefault(tuple(part.slices[number].shard for number in others), []).append((color, part))
    title = f"the tensor: {_listed(drawn) or 'one number'} by the devices that hold them"
    if len(placement.indices) > len(drawn):
        whole = [name for number, name in enumerate(placement.indices) if number not in (*numbers, *others)]
        title += f"; {_listed(whole)} {'is' if len(whole) == 1 else 'are'} not divided" if whole else ""
    pictures: list[Picture] = []
    for held in list(slices.values())[:MOST_SLICES]:
        at = ", ".join(_span(held[0][1].slices[number], placement.counts[number]) for number in others)
        lines = _part_grid(placement, numbers, held)
        pictures.append(Picture("" if pictures else title, ((((at, "header"),),) if at else ()) + lines))
    rest = len(slices) - len(pictures)
    if rest:
        names = _listed([placement.indices[number] for number in others])
        line: Line = ((f"{_counted(rest, 'more such grid')} for the other parts of {names}", ""),)
        pictures[-1] = Picture(pictures[-1].title, (*pictures[-1].lines, line))
    return pictures


def _part_grid(placement: Placement, numbers: list[int], held: list[tuple[int, Part]]) -> tuple[Line, ...]:
    """A grid of the parts that differ in the drawn dims alone; one dim lies across."""
    down, across = ([], numbers) if len(numbers) < 2 else (numbers[:1], numbers[1:])
    rows: dict[str, dict[str, Cell]] = {}
    for color, part in held:
        labels = [
            " ".join(_span(part.slices[number], placement.counts[number]) for number in dims) for dims in (down, across)
        ]
        rows.setdefault(labels[0], {})[labels[1]] = Cell(_holders(part), color)
    columns = list(next(iter(rows.values())))
    return draw_grid(list(rows), columns, [[row[column] for column in columns] for row in rows.values()])


def _span(part: Slice, count: int) -> str:
    """The part of a dim as one writes a slice; padding behind it is counted."""
    if part.start is None:
        return f"{part.index} {part.shard + 1}/{count}" if count > 1 else part.index
    return f"{part.index} {part.start}:{part.stop}" + (f" +{part.padding}" if part.padding else "")


def _holders(part: Part) -> str:
    """Who holds a part: copies between commas, devices of one sum between `+`."""
    if all(len(copy) == 1 for copy in part.copies):
        return _few(_runs([copy[0] for copy in part.copies]), len(part.devices))
    sums = ["+".join(map(str, copy)) if len(copy) <= MOST_NAMED else _sum(copy) for copy in part.copies]
    return _few(sums, len(part.copies))


def _sum(copy: tuple[int, ...]) -> str:
    """Many devices that hold parts of one sum."""
    return f"{copy[0]}+{copy[1]}+…+{copy[-1]}"


def _runs(devices: Sequence[int]) -> list[str]:
    """Numbers, those that follow on each other as `0-3`.

    >>> _runs([0, 1, 2, 3, 8, 10])
    ['0-3', '8', '10']
    """
    runs: list[list[int]] = []
    for device in sorted(devices):
        if runs and device == runs[-1][-1] + 1:
            runs[-1].append(device)
        else:
            runs.append([device])
    return [word for run in runs for word in ([f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run))]


def _few(words: list[str], count: int) -> str:
    """The words, or as many of the first as a cell has room for, and how many devices or copies there are."""
    whole = ",".join(words)
    if len(words) <= MOST_NAMED and len(whole) <= MOST_SIGNS:
        return whole
    shown = words[: MOST_NAMED - 1]
    while len(shown) > 1 and len(",".join(shown)) > MOST_SIGNS - 8:
        shown.pop()
    return ",".join(shown) + f",… ({count})"


def _dim_rows(placement: Placement) -> tuple[Row, ...]:
    """One row for each dim."""
    found: list[Row] = []
    for index, axes, size, count, local in zip(
        placement.indices, placement.layout.dims, placement.sizes, placement.counts, placement.local_shape, strict=True
    ):
        over = " x ".join(f"{axis}={placement.mesh.size(axis)}" for axis in axes)
        padding = None if size is None or local is None else local * count - size
        found.append(Row((index, size, over, count, local, padding)))
    return tuple(found)


def _device_rows(answer: PlacedTensor) -> tuple[Row, ...]:
    """One row for each device, in the order of their numbers."""
    placement, stored = answer.placement, answer.local_bytes
    places = list(product(*(range(axis.size) for axis in answer.mesh.axes)))
    rows: list[tuple[int, Row]] = []
    for part in placement.parts:
        whole = total(placement.local_shape)
        held = total(tuple(None if one.start is None else _length(one) for one in part.slices))
        padding = None if whole is None or held is None else whole - held
        text = ", ".join(_cell(one, count) for one, count in zip(part.slices, placement.counts, strict=True))
        for device in part.devices:
            at = ",".join(f"{axis.name}={here}" for axis, here in zip(answer.mesh.axes, places[device], strict=True))
            copies = len(part.copies)
            rows.append((device, Row((device, at, text, held, padding, stored, copies, len(part.copies[0])))))
    return tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))


def _length(part: Slice) -> int:
    return (part.stop or 0) - (part.start or 0)


def _cell(part: Slice, count: int) -> str:
    """A slice as Python writes it, or which of how many parts."""
    return f"{part.start}:{part.stop}" if part.start is not None else f"{part.shard + 1}/{count}"


def _summary(answer: PlacedTensor, units: str) -> tuple[str, ...]:
    """What a device holds, which copies there are, which sums are owed, where there is padding."""
    placement = answer.placement
    mesh, layout = answer.mesh, placement.layout
    shape = " x ".join("?" if size is None else str(size) for size in placement.local_shape) or "one number"
    parts, stored = len(placement.parts), answer.local_bytes
    share = "the whole" if parts == 1 else f"one of {parts} parts"
    lines = [f"each device holds {shape}, {share}" + (f": {format_bytes(stored, units)}" if stored is not None else "")]
    copies = len(placement.parts[0].copies)
    over = _listed([f"{axis}={mesh.size(axis)}" for axis in placement.replicated])
    lines.append(f"replicated over {over}: {copies} copies of every part" if over else "nothing is held twice")
    if layout.unreduced:
        over = _listed([f"{axis}={mesh.size(axis)}" for axis in layout.unreduced])
        what = {"sum": "sum", "max": "maximum", "min": "minimum"}[layout.reduction]
        lines.append(
            f"unreduced over {over}: a {what} is owed, {len(placement.parts[0].copies[0])} devices hold partial"
            " results of each part; an all-reduce or a reduce-scatter pays it"
        )
    for index, size, count, local in zip(
        placement.indices, placement.sizes, placement.counts, placement.local_shape, strict=True
    ):
        if size is not None and local is not None and local * count != size:
            waste = 1 - size / (local * count)
            last = f"the last {'holds nothing else' if size <= local * (count - 1) else 'is not full'}"
            lines.append(f"uneven: {index}={size} in {count} parts of {local}; {last}, {100 * waste:.2g} % is padding")
    return tuple(lines)


def _conventions(placement: Placement) -> tuple[str, ...]:
    """How to read the pictures."""
    words = ["devices are numbered along the mesh, the last axis fastest; 0-3 or 0,1: each holds a copy of the part"]
    if placement.layout.unreduced:
        words.append("0+1: together, their partial results make the part")
    if any(part.padding for one in placement.parts for part in one.slices):
        words.append("+2 behind a slice: so many elements of padding are stored after it")
    return tuple(words)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def shard_document(answer: PlacedTensor) -> dict[str, Any]:
    """Everything the report knows, device by device."""
    placement = answer.placement
    system = answer.network.system.name if answer.network is not None else None
    return {
        **head("shard"),
        "inputs": {
            "spec": answer.spec,
            "mesh": [{"name": axis.name, "size": axis.size, "level": axis.level} for axis in answer.mesh.axes],
            "devices": answer.mesh.devices,
            "dtype": answer.dtype,
            "hardware": system,
            "dims_drawn": list(answer.drawn),
        },
        "name": answer.name,
        "dims": [dict(zip((column.key for column in DIMS), row.cells, strict=True)) for row in _dim_rows(placement)],
        "axes": _axes(answer),
        "replicated_over": list(placement.replicated),
        "unreduced_over": list(placement.layout.unreduced),
        "reduction": placement.layout.reduction if placement.layout.unreduced else None,
        "local_shape": list(placement.local_shape),
        "local_bytes": answer.local_bytes,
        "parts": [
            {
                "slices": [
                    {
                        "dim": one.index,
                        "part": one.shard,
                        "start": one.start,
                        "stop": one.stop,
                        "padding": one.padding,
                    }
                    for one in part.slices
                ],
                "copies": [list(copy) for copy in part.copies],
            }
            for part in placement.parts
        ],
    }
