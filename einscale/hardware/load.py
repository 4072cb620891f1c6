"""Find, read and check the TOML file of a system; every fault becomes a `HardwareError` that names the key."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from einscale.dtypes import dtype as canonical_dtype
from einscale.dtypes import is_dtype
from einscale.errors import HardwareError, did_you_mean, near_miss
from einscale.hardware import values
from einscale.hardware.facts import describe
from einscale.hardware.values import Chip, Level, System

DEFAULT_SYSTEM = "h100"
"""The system that prices a plan where none is named."""

SYSTEMS = Path(__file__).parent / "systems"
LARGEST_FILE = 1_000_000
"""Bytes; a description of a machine is a few thousand."""

LARGEST_NAME = 4096


def load_system(name_or_path: str | Path) -> System:
    """A system by name or alias (any case; blanks, `_` and brackets read as `-`), or from a TOML file by path.

    A path is a `Path`, or text that ends in `.toml` or has a separator. The file is a full description, or names
    another system as `base` and overrides parts of it: see docs/hardware.md.

    >>> load_system("H100-80GB").name, [level.name for level in load_system("tpu-v5e").levels]
    ('h100', ['ici', 'dcn'])

    Args:
        name_or_path: of a system, or of a file that describes one.

    Raises:
        HardwareError: the name is unknown, or the file is missing, unreadable or malformed; the message names the key.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.casefold().endswith(".toml") or "/" in text or "\\" in text:
        return _load_file(Path(name_or_path))
    return _load_named(text)


def load_chip(name_or_path: str | Path) -> Chip:
    """The chip of a system.

    Raises:
        HardwareError: as `load_system`.
    """
    return load_system(name_or_path).chip


@lru_cache(maxsize=64)
def list_systems() -> tuple[tuple[str, str], ...]:
    """Every system einscale knows: (name, one line of facts), by name.

    >>> dict(list_systems())["tpu-v5e"]
    'bf16 197 TFLOP/s, 16 GB at 810 GB/s, ici 45 GB/s per link (16x16 torus), dcn 3.125 GB/s'
    """
    return tuple((name, one_line(_load_named(name))) for name in sorted(path.stem for path in SYSTEMS.glob("*.toml")))


def one_line(system: System) -> str:
    """Datasheet peak, memory and links of a system in one line."""
    chip = system.chip
    rate = next((peak for peak in chip.peaks if peak.dtype == "bf16"), chip.peaks[0])
    parts = [
        f"{rate.dtype} {rate.datasheet / 1e12:g} TFLOP/s",
        f"{chip.memory.value:g} {chip.memory.unit} at {chip.memory_bandwidth.datasheet / 1e9:g} GB/s",
    ]
    for level in system.levels:
        each = "" if level.kind == "switch" else " per link"
        shape = "x".join(str(extent) for extent in level.shape)
        domain = f" ({shape} torus)" if shape else f" ({level.domain} devices)" if level.domain else ""
        parts.append(f"{level.name} {level.bandwidth.datasheet / 1e9:g} GB/s{each}{domain}")
    return ", ".join(parts)


@lru_cache(maxsize=64)
def _load_named(name: str) -> System:
    stem = _stem(name)
    return _build(_read(SYSTEMS / f"{stem}.toml"), SYSTEMS / f"{stem}.toml", stem)


def _stem(name: str) -> str:
    """File stem of a named system; aliases are read from the files' own headers."""
    folded = re.sub(r"[\s_()-]+", "-", name.casefold()).strip("-") if len(name) <= LARGEST_NAME else ""
    stems = sorted(path.stem for path in SYSTEMS.glob("*.toml"))
    if folded in stems:
        return folded
    aliases = {alias.casefold(): stem for stem in stems for alias in _aliases(stem)}
    if folded in aliases:
        return aliases[folded]
    known = [*stems, *aliases]
    match = near_miss(folded, known)
    listed = ", ".join(stems)
    shown = name if len(name) <= 60 else name[:60] + "…"
    raise HardwareError(
        f"unknown hardware `{shown}`",
        text=shown,
        span=(0, len(shown)),
        expected="the name of a system, or the path of a .toml file that describes one",
        hint=f"did you mean `{match}`?" if match else f"systems: {listed}",
    )


def _aliases(stem: str) -> tuple[str, ...]:
    """Aliases of a system, from the top of its file: parsing all files whole would take longer than planning."""
    head = (SYSTEMS / f"{stem}.toml").read_text("utf-8").split("\n[", 1)[0]
    return tuple(tomllib.loads(head).get("aliases", ()))


def _load_file(path: Path) -> System:
    raw = _read(path)
    base = raw.pop("base", None)
    name = path.stem
    if base is not None:
        if not isinstance(base, str):
            raise _fault(path, "base", "must be the name of a system", expected='text, for example `base = "h100"`')
        stem = _stem(base)
        whole = _read(SYSTEMS / f"{stem}.toml")
        whole.pop("aliases", None)
        whole["title"] = f"{path.name}, changed from {stem}"
        whole["name"] = name
        _check_tables(raw, path)
        raw = _merged(whole, raw)
    return _build(raw, path, name)


def _read(path: Path) -> dict[str, Any]:
    """The TOML of a file, its size checked before it is read."""
    try:
        if path.is_dir():
            raise _fault(path, "", "is a directory", expected="a .toml file that describes a system")
        size = path.stat().st_size
        if not path.is_file():
            raise _fault(path, "", "is not a regular file", expected="a .toml file that describes a system")
        if size > LARGEST_FILE:
            message = f"is too large for a description of a machine: {size:,} bytes"
            raise _fault(path, "", message, expected=f"at most {LARGEST_FILE:,} bytes")
        text = path.read_bytes().decode("utf-8")
    except HardwareError:
        raise
    except FileNotFoundError:
        hint = "to name a system einscale knows, leave out the path: `einscale hardware` lists them"
        raise _fault(path, "", "does not exist", hint=hint) from None
    except UnicodeDecodeError as error:
        raise _fault(path, "", f"is not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise _fault(path, "", f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not text.strip():
        raise _fault(path, "", "is empty", expected='a system: `base = "h100"` and what differs, or a full description')
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_toml(path, text, error) from None


def _not_toml(path: Path, text: str, error: Exception) -> HardwareError:
    """A syntax error of TOML, its line underlined."""
    if isinstance(error, RecursionError):
        return _fault(path, "", "is not TOML: nested too deeply")
    found = re.search(r"(.*) \(at line (\d+), column (\d+)\)", str(error))
    if found is None:
        return _fault(path, "", f"is not TOML: {str(error)[:200]}")
    lines = text.splitlines()
    row, column = int(found[2]) - 1, int(found[3]) - 1
    line = lines[row] if row < len(lines) else ""
    reason = found[1][:1].lower() + found[1][1:]
    message = f"{_shown(path)} is not TOML: line {row + 1}: {reason[:200]}"
    return HardwareError(message, text=line, span=(column, column + 1))


def _fault(
    path: Path, key: str, message: str, *, expected: str | None = None, hint: str | None = None
) -> HardwareError:
    where = f"{_shown(path)}: `{key}`" if key else _shown(path)
    return HardwareError(f"{where} {message}", expected=expected, hint=hint)


def _shown(path: Path) -> str:
    text = str(path)
    return ascii(text if len(text) <= 120 else "…" + text[-120:])[1:-1] if not text.isprintable() else text[-120:]


def _check_tables(raw: dict[str, Any], path: Path) -> None:
    """Raise where a user's override is no table, before it is merged into a base."""
    for key in ("chip", "levels", "sources"):
        if key in raw and not isinstance(raw[key], dict):
            raise _fault(path, key, "must be a table", expected=f"[{key}] or [{key}.NAME]")


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`. A figure given a new value keeps only the unit and terms it had, not its source."""
    merged = dict(base)
    for key, change in changes.items():
        before = base.get(key)
        if isinstance(before, dict) and isinstance(change, dict):
            if "value" in before and "value" in change:
                before = {part: before[part] for part in ("unit", "sparsity", "direction") if part in before}
            merged[key] = _merged(before, change)
        else:
            merged[key] = change
    return merged


def _build(raw: dict[str, Any], path: Path, name: str) -> System:
    """A checked system from a file's tables."""
    raw = dict(raw)
    raw.setdefault("name", name)
    raw.setdefault("title", f"described in {path.name}")
    raw["path"] = "" if path.parent == SYSTEMS else str(path)
    order: dict[str, tuple[str, ...]] = {}
    sources = raw.get("sources", {})
    raw["sources"] = _listed(raw, path, "sources", "key", order)
    raw["levels"] = _listed(raw, path, "levels", "name", order)
    chip = raw.get("chip")
    if isinstance(chip, dict):
        chip = raw["chip"] = dict(chip)
        chip.setdefault("name", raw["name"])
        _check_dtypes(chip, path)
        chip["peaks"] = _listed(chip, path, "peaks", "dtype", order, "chip.peaks")
    _fill_sources(raw, sources if isinstance(sources, dict) else {}, path.name)
    try:
        system = msgspec.convert(raw, System)
    except msgspec.ValidationError as error:
        raise _invalid(path, str(error), order) from None
    _check(system, path)
    return system


def _listed(
    table: dict[str, Any], path: Path, key: str, label: str, order: dict[str, tuple[str, ...]], where: str = ""
) -> Any:
    """A table of named tables as a list of tables that hold their name: TOML names them, values are tuples."""
    named = table.get(key, {})
    where = where or key
    if not isinstance(named, dict):
        raise _fault(path, where, "must be a table", expected=f"[{where}.NAME]")
    for name, entry in named.items():
        if not isinstance(entry, dict):
            raise _fault(path, f"{where}.{name}", "must be a table", expected=f"[{where}.{name}] with its figures")
        if label in entry:
            raise _fault(path, f"{where}.{name}.{label}", f"is given twice: [{where}.{name}] says it already")
    order[where] = tuple(named)
    return [{label: name, **entry} for name, entry in named.items()]


def _check_dtypes(chip: dict[str, Any], path: Path) -> None:
    """Canonical names for `chip.peaks`, in any spelling of an element type."""
    peaks = chip.get("peaks")
    if not isinstance(peaks, dict):
        return
    renamed: dict[str, Any] = {}
    for name, entry in peaks.items():
        if not is_dtype(name):
            hint = did_you_mean(name, ("bf16", "fp16", "tf32", "fp32", "fp8", "fp4", "int8"), "dtypes")
            raise _fault(path, f"chip.peaks.{name}", "is not an element type", hint=hint)
        renamed[canonical_dtype(name)] = entry
    chip["peaks"] = renamed


def _fill_sources(table: Any, sources: dict[str, Any], origin: str) -> None:
    """Give every figure the date of its source; a figure of a user's file that names no source has the file as one."""
    if isinstance(table, list):
        for position, entry in enumerate(table):
            table[position] = _sourced(entry, sources, origin)
    elif isinstance(table, dict):
        for key, entry in table.items():
            table[key] = _sourced(entry, sources, origin)


def _sourced(entry: Any, sources: dict[str, Any], origin: str) -> Any:
    if isinstance(entry, dict):
        entry = dict(entry)
        if "value" in entry:
            entry.setdefault("source", origin)
            cited = sources.get(entry["source"]) if isinstance(entry["source"], str) else None
            if isinstance(cited, dict) and isinstance(cited.get("date"), str):
                entry.setdefault("date", cited["date"])
    if isinstance(entry, (dict, list)):
        _fill_sources(entry, sources, origin)
    return entry


def _check(system: System, path: Path) -> None:
    """Raise on what the types do not say: no peak, no level, numbers that are not finite, shapes that do not fit."""
    if not system.chip.peaks:
        raise _fault(path, "chip.peaks", "is missing or empty", expected="[chip.peaks.bf16] with value, unit, sparsity")
    if not system.levels:
        raise _fault(
            path, "levels", "is missing or empty", expected="[levels.NAME] for each network level, fast to slow"
        )
    for key, value in _figures(system):
        if not math.isfinite(value):
            raise _fault(path, key, "must be a finite number")
    below = 1
    names: set[str] = set()
    for level in system.levels:
        if not re.fullmatch(r"[A-Za-z]\w*", level.name, re.ASCII):
            raise _fault(path, f"levels.{level.name}", "has a name no mesh can write", expected="letters, digits and _")
        if level.name.casefold() in names:
            raise _fault(path, f"levels.{level.name}", "is named twice, in another case")
        names.add(level.name.casefold())
        below = _check_level(level, path, below)


def _check_level(level: Level, path: Path, below: int) -> int:
    """Raise unless a level's domain holds whole domains of the faster one; its own size, for the next."""
    where = f"levels.{level.name}"
    if level.kind == "torus" and not level.shape:
        raise _fault(path, f"{where}.shape", "is missing: a torus needs one", expected="extents, for example [16, 16]")
    if level.kind != "torus" and level.shape:
        raise _fault(path, f"{where}.shape", f"is for a torus, and this level is a {level.kind}")
    if len(level.shape) > 6:
        raise _fault(path, f"{where}.shape", "has too many dims", expected="at most 6")
    size = domain_size(level)
    if level.shape and level.domain is not None and level.domain != math.prod(level.shape):
        raise _fault(
            path, f"{where}.domain", f"is {level.domain}, but the shape holds {math.prod(level.shape)} devices"
        )
    if size is None:
        return below
    if size < below or size % below:
        message = f"is {size}: it must hold whole domains of {below} devices of the faster level"
        raise _fault(path, f"{where}.domain", message, hint="levels stand fast to slow")
    return size


def domain_size(level: Level) -> int | None:
    """Devices that one network of a level joins; None is unbounded."""
    return math.prod(level.shape) if level.shape else level.domain


def _figures(system: System) -> Iterator[tuple[str, float]]:
    for fact in describe(system):
        yield fact.key, fact.value
        yield fact.key, fact.used


UNIT_OF = {
    "peaks": values.RATE_UNITS,
    "memory": values.CAPACITY_UNITS,
    "launch": values.TIME_UNITS,
    "power": values.POWER_UNITS,
    "start": values.TIME_UNITS,
    "cores": ("cores",),
    "host_chips": ("chips",),
    "units": ("SMs",),
    "fill": ("elements",),
    "edge": ("elements",),
    **dict.fromkeys(("matmul", "attention", "attention_backward", "flash2", "flash2_backward"), ("of peak",)),
    **dict.fromkeys(("moving", "sustained"), ("of datasheet",)),
    "epilogue": ("of write",),
}
FIELDS: dict[str, type[msgspec.Struct]] = {
    "": System,
    "chip": Chip,
    "chip.peaks": values.Rate,
    "chip.memory": values.Capacity,
    "chip.memory_bandwidth": values.MemoryBandwidth,
    "chip.host_bandwidth": values.Bandwidth,
    "chip.power": values.Power,
    "chip.cores": values.Count,
    "chip.host_chips": values.Count,
    "chip.kernels": values.Kernels,
    **{
        f"chip.kernels.{key}": values.Share
        for key in ("matmul", "attention", "attention_backward", "flash2", "flash2_backward", "moving", "epilogue")
    },
    **{f"chip.kernels.{key}": values.Count for key in ("units", "fill", "edge")},
    **{f"chip.kernels.{key}": values.Latency for key in ("start", "launch")},
    "levels": Level,
    "levels.bandwidth": values.Bandwidth,
    "levels.launch": values.Latency,
    "levels.hop": values.Latency,
    "levels.sustained": values.Share,
    "sources": values.Source,
}


def _invalid(path: Path, message: str, order: dict[str, tuple[str, ...]]) -> HardwareError:
    """A validation message of msgspec in terms of the file's keys."""
    reason, _, pointer = message.partition(" - at `")
    pointer = pointer.rstrip("`").removeprefix("$").lstrip(".")
    kind = re.sub(r"\[\d+\]|\.attainable$", "", pointer)
    keys = re.sub(r"(\w[\w.]*)\[(\d+)\]", lambda found: _name_at(found, order), pointer)
    missing = re.fullmatch(r"Object missing required field `(\w+)`", reason)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL)
    if missing:
        return _fault(path, _joined(keys, missing[1]), "is missing", expected=_wanted(kind, missing[1]))
    if unknown:
        struct = values.Attainable if pointer.endswith(".attainable") else FIELDS.get(kind, System)
        fields = [name for name in struct.__struct_fields__ if name not in ("path", "key", "dtype")]
        known = ["base", *fields] if struct is System else fields
        hint = did_you_mean(unknown[1][:80], known, "keys here")
        return _fault(path, _joined(keys, unknown[1][:80]), "is not a key einscale knows", hint=hint)
    field = kind.rpartition(".")[2]
    enum = re.fullmatch(r"Invalid enum value (.*)", reason, re.DOTALL)
    if enum:
        given = enum[1].strip("'\"")[:80]
        choices = _choices(kind, field)
        bits = re.fullmatch(r"([GT])bps", given)
        match = f"{bits[1]}b/s" if bits and f"{bits[1]}b/s" in choices else near_miss(given, choices)
        expected = "one of " + ", ".join(choices)
        return _fault(
            path, keys, f"is `{given}`", expected=expected, hint=f"did you mean `{match}`?" if match else None
        )
    expected, got = _plain(reason)
    return _fault(path, keys or "the file", f"is {got}" if got else "is out of range", expected=expected)


def _name_at(found: re.Match[str], order: dict[str, tuple[str, ...]]) -> str:
    names = order.get(found[1], ())
    position = int(found[2])
    return f"{found[1]}.{names[position]}" if position < len(names) else found[0]


def _joined(keys: str, field: str) -> str:
    return f"{keys}.{field}" if keys else field


def _wanted(kind: str, field: str) -> str:
    """What a missing key should hold."""
    if field in ("unit", "sparsity", "direction", "kind"):
        return "one of " + ", ".join(_choices(_joined(kind, field), field))
    if field in ("memory", "memory_bandwidth", "bandwidth", "launch", "hop"):
        return f"a figure: {field} = {{ value = ..., unit = ..., source = ... }}"
    return {"value": "a number", "chip": "a table [chip]", "peaks": "tables [chip.peaks.DTYPE]"}.get(field, "text")


def _choices(kind: str, field: str) -> list[str]:
    """The words a key may hold."""
    if field == "sparsity":
        return ["dense", "2:4"]
    if field == "direction":
        return ["one-way", "two-way"]
    if field == "kind":
        return list(values.NetworkKind)
    owner = kind.split(".")[-2] if "." in kind else ""
    units = {"hop": values.TIME_UNITS, **UNIT_OF}.get(owner, values.BANDWIDTH_UNITS)
    return list(units)


KINDS = {"str": "text", "float": "a number", "int": "a whole number", "object": "a table", "array": "a list"}


def _plain(reason: str) -> tuple[str, str]:
    """(expected, got) of a type message, in words."""
    found = re.fullmatch(r"Expected `([^`]*)`(?: (.*?))?(?:, got `([^`]*)`)?", reason, re.DOTALL)
    if found is None:
        return "a smaller number" if reason == "Number out of range" else "what docs/hardware.md says", "out of range"
    names = [KINDS.get(part.strip(), part.strip()) for part in found[1].split("|") if part.strip() != "null"]
    expected = " or ".join(names) + (f" {found[2]}" if found[2] else "")
    if found[2] == ">= 1e-09":
        expected = "a positive number"
    got = KINDS.get(found[3], {"bool": "true or false"}.get(found[3], found[3])) if found[3] else ""
    return expected, got
