"""Defaults a user sets once: an `einscale.toml`, and environment variables.

A flag wins over an environment variable, that over the nearest `einscale.toml`, that over the one in the user's
configuration directory, that over what is built in. Whatever one of them decides is said on stderr: nobody should have
to guess why the same command prints another number elsewhere.

    hardware = "tpu-v5p"    # of every command that has --hardware
    units = "si"

    [train]                 # options of one command, by their long names
    zero = 1
    recompute = ["selective"]
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from einscale.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import typer

FILE = "einscale.toml"
DEFAULTS = "einscale.cli.settings"
"""Where a context keeps the user's defaults."""

VARIABLE = "EINSCALE_CONFIG"
"""Names a file to read instead of those that would be found; empty: read none."""

SHARED = ("hardware", "units", "format", "color", "quiet", "pager")
"""Keys outside any table: options of every command that has them."""

NEVER = ("help", "out", "table", "verify")
"""Options that belong to one call and are no defaults."""

LOOKS = ("color", "quiet", "pager")
"""Options that change no answer, so that nothing is said about them."""


class Default(Struct, frozen=True):
    """A default of one option.

    Args:
        value: text, a flag, or several texts.
        source: where it comes from, in words.
    """

    value: str | bool | tuple[str, ...]
    source: str


class KnownOption(Struct, frozen=True):
    """What a file may say of an option.

    Args:
        name: of the parameter.
        flag: it is on or off.
        several: it may be given several times.
        variable: the environment variable that may hold it, "" for none.
    """

    name: str
    flag: bool
    several: bool
    variable: str = ""


class Document(Struct, frozen=True):
    """A file as read.

    Args:
        path: where it is.
        text: what it holds.
        values: the same, parsed.
    """

    path: Path
    text: str
    values: dict[str, Any]


def config_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold defaults for someone working in a folder, the nearest first.

    That is the first `einscale.toml` from the folder upwards, no farther than the root of its repository or the user's
    home, and `einscale/einscale.toml` in the user's configuration directory.

    Raises:
        UsageError: `EINSCALE_CONFIG` names a file that is not there.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        if named and not Path(named).is_file():
            raise UsageError(f"{VARIABLE} names `{named}`, which is no file", hint="set it empty to read no file")
        return (Path(named),) if named else ()
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    found: list[Path] = []
    for place in (folder, *folder.parents):
        if (place / FILE).is_file():
            found.append(place / FILE)
            break
        if str(place) == home or (place / ".git").exists():
            break
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path(home, ".config"), "einscale", FILE)
    if own not in found and own.is_file():
        found.append(own)
    return tuple(found)


def defaults(command: str, options: Mapping[str, KnownOption], commands: tuple[str, ...]) -> dict[str, Default]:
    """Option (by the name of its parameter) -> its default from the environment or the files, where one has it.

    Args:
        command: the one that runs.
        options: its options by their long names, without dashes.
        commands: every command's name: the tables a file may have.

    Raises:
        UsageError: a file cannot be read, or says something that is not understood; the place is underlined.
    """
    chosen: dict[str, Default] = {}
    for path in reversed(config_files(_folder())):  # the nearest last: it wins
        document = _read(path)
        _check_tables(document, commands)
        shared = {key: value for key, value in document.values.items() if not isinstance(value, dict)}
        own = document.values.get(command, {})
        for table, values in (("", shared), (command, own)):
            for key, value in values.items():
                option = options.get(key.replace("_", "-"))
                if option is not None and key not in NEVER:
                    chosen[option.name] = Default(_value(document, table, key, value, option), shown(path))
                elif table:
                    known = sorted(name for name in options if name not in NEVER)
                    raise _fault(document, table, key, f"`{command}` has no option `{key}`", known, "its options are")
    for option in options.values():
        if os.environ.get(option.variable):
            chosen[option.name] = Default(os.environ[option.variable], f"the environment variable {option.variable}")
    return chosen


def announce(context: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Say which defaults of a user decide the answer, and complete the options that may stand before the command.

    Args:
        context: of the command; its parents' options are in `obj`.
        values: the command's parameters.

    Returns:
        the parameters, with what was given before the command where nothing was given after it.
    """
    sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in values}
    before: dict[str, Any] = context.obj or {}
    given = {
        name: before[name] if name in before and sources[name] != "COMMANDLINE" else value
        for name, value in values.items()
    }
    _overrule(given, sources)
    lines = [] if given.get("quiet") else _notes(context, given, sources)
    if lines:
        from einscale.cli.output import write

        write(sys.stderr, "".join(lines))
    return given


def _overrule(values: dict[str, Any], sources: dict[str, str]) -> None:
    """Take back a default form of the output where a flag asks for another: `--json`, `-o r.csv`, `--format md`."""
    asked = {name for name, source in sources.items() if source == "COMMANDLINE"}
    if "output_format" in values and "output_format" not in asked and asked & {"as_json", "out"}:
        values["output_format"], sources["output_format"] = "auto", ""
    if "as_json" in values and "as_json" not in asked and asked & {"output_format", "out", "table"}:
        values["as_json"], sources["as_json"] = False, ""


def _notes(context: typer.Context, values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """One line for each default that comes from the environment or from a file."""
    defaults: dict[str, Default] = (context.find_root().obj or {}).get(DEFAULTS, {})
    lines: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        flag = max(parameter.opts, key=len)
        if name in defaults and name not in LOOKS and sources[name] in ("ENVIRONMENT", "DEFAULT_MAP"):
            lines.append(f"note: {_shown(flag, values[name])}, from {defaults[name].source}\n")
    return lines


def _shown(flag: str, value: Any) -> str:
    """An option as one would give it."""
    if isinstance(value, bool):
        return flag if value else f"{flag} is off"
    return " ".join(f"{flag} {one}" for one in (value if isinstance(value, list | tuple) else [value]))


def shown(path: Path) -> str:
    """A file's path as someone in the current directory would write it."""
    folder = _folder()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _folder() -> Path:
    """The current directory; one that was removed holds nothing."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def _read(path: Path) -> Document:
    """A file of defaults.

    Raises:
        UsageError: it cannot be read, or is no TOML.
    """
    import tomllib

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read `{shown(path)}`: {reason}") from error
    try:
        return Document(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        span = _place(text, int(found[1]), int(found[2])) if found else None
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise UsageError(
            f"`{shown(path)}` is no TOML: {reason[:1].lower()}{reason[1:]}", text=text, span=span
        ) from error


def _place(text: str, line: int, column: int) -> tuple[int, int]:
    """Span of the character at a line and a column, both counted from 1."""
    start = sum(len(one) for one in text.splitlines(keepends=True)[: line - 1]) + column - 1
    return start, start + 1


def _check_tables(document: Document, commands: tuple[str, ...]) -> None:
    """Raise unless a file has no other keys and tables than there are.

    Raises:
        UsageError: it has one.
    """
    for key, value in document.values.items():
        if isinstance(value, dict):
            if key not in commands:
                raise _fault(document, key, "", f"there is no command `{key}`", commands, "the commands are")
        elif key.replace("_", "-") not in SHARED:
            raise _fault(document, "", key, f"unknown key `{key}`", (*SHARED, *commands), "the keys are")


def _value(
    document: Document, table: str, key: str, value: object, option: KnownOption
) -> str | bool | tuple[str, ...]:
    """A value as the option takes it.

    Raises:
        UsageError: it is of another kind.
    """
    if option.flag and isinstance(value, bool):
        return value
    if not option.flag:
        if _plain(value):
            return (str(value),) if option.several else str(value)
        if option.several and isinstance(value, list) and all(map(_plain, value)):
            return tuple(map(str, value))
    several = ", or a list of them" if option.several else ""
    expected = "true or false" if option.flag else f"text or a number{several}"
    raise _fault(document, table, key, f"`{key}` cannot be that", (), "", expected)


def _plain(value: object) -> bool:
    """Whether a value is text or a number."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _fault(
    document: Document,
    table: str,
    key: str,
    message: str,
    known: tuple[str, ...] | list[str],
    what: str,
    expected: str = "",
) -> UsageError:
    """An error that underlines a key, or the name of a table where no key is given."""
    return UsageError(
        f"{message} (in {shown(document.path)})",
        text=document.text,
        span=_find(document.text, table, key),
        expected=expected or None,
        hint=did_you_mean(key or table, known, what) if known else None,
    )


def _find(text: str, table: str, key: str) -> tuple[int, int] | None:
    """Where a key of a table stands in the text, or the table's name where no key is given."""
    current, start = "", 0
    for line in text.splitlines(keepends=True):
        header = re.match(r"\s*\[\s*([\w-]+)\s*\]", line)
        if header is not None:
            current = header[1]
            if current == table and not key:
                return start + header.start(1), start + header.end(1)
        found = re.match(rf'\s*"?({re.escape(key)})"?\s*[=.]', line) if key and current == table else None
        if found is not None:
            return start + found.start(1), start + found.end(1)
        start += len(line)
    return None
