"""Writes `docs/api_reference.md` from signatures and docstrings: `python docs/generate_api.py`; a test runs it too."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("api_reference.md")

HEAD = """\
# Every function and class

Written by `docs/generate_api.py` from the docstrings; [answers in Python](answers.md) says what all answers share.
Everything is a name of the package: `import einscale`, then `einscale.plan(...)`. Examples are run by the tests.
"""

SECTIONS = ("Args", "Returns", "Raises")
WIDEST = 92
"""Columns of a signature on one line."""


def reference() -> str:
    """The page."""
    import einscale

    values = {name: getattr(einscale, name) for name in einscale.__all__ if name != "__version__"}
    errors = {name for name, value in values.items() if inspect.isclass(value) and issubclass(value, Exception)}
    base = einscale.Answer.__mro__[1]
    shown = {name for name, value in values.items() if inspect.isclass(value) and issubclass(value, base)}
    groups = {
        "Questions": [name for name in values if inspect.isfunction(values[name]) and name not in _LOOKUPS],
        "Models, systems, strategies": [name for name in values if name in _LOOKUPS],
        "Answers": [name for name in values if name in shown],
        "Values": [name for name in values if inspect.isclass(values[name]) and name not in shown | errors],
        "Errors": [name for name in values if name in errors],
    }
    blocks = [HEAD]
    for title, names in groups.items():
        blocks.append(f"## {title}\n")
        if title == "Errors":
            blocks.append(_errors([values[name] for name in names]))
            continue
        for name in names:
            value = values[name]
            blocks += _class(name, value) if inspect.isclass(value) else _function(name, value)
    return "\n".join(blocks)


_LOOKUPS = (
    "list_models",
    "list_strategies",
    "list_systems",
    "load_model",
    "load_strategy",
    "load_system",
    "make_mesh",
    "parse_spec",
)


def _function(name: str, function: Callable[..., Any]) -> list[str]:
    """A function: how it is called, what it does, its arguments, an example."""
    text, sections, example = _parts(function)
    blocks = [f"### {name}\n", f"```text\n{_signature(name, function)}\n```\n"]
    return [*blocks, text, *_example(example), *_sections(sections)]


def _class(name: str, value: type[Any]) -> list[str]:
    """A class: what it is, its fields, its properties and methods."""
    text, sections, example = _parts(value)
    blocks = [f"### {name}\n", text, *_example(example), *_sections(sections, "field")]
    own = [vars(one) for one in _own(name, value)]
    members = [
        (key, member)
        for names in own
        for key, member in names.items()
        if not key.startswith("_") and (isinstance(member, property | cached_property) or inspect.isfunction(member))
    ]
    if members:
        rows = [f"| `{_member(key, member)}` | {_cell(_summary(member))} |" for key, member in members]
        blocks.append("\n".join(["| has | |", "|---|---|", *rows]) + "\n")
    return blocks


def _own(name: str, value: type[Any]) -> list[type[Any]]:
    """Classes whose members are a class's own: its value's before its, and of `Answer` what all answers share."""
    import einscale

    base = einscale.Answer.__mro__[1]
    if name == "Answer":
        return [one for one in value.__mro__ if one.__module__ == value.__module__]
    values = [one for one in value.__mro__[1:] if one.__module__.startswith("einscale.") and not issubclass(one, base)]
    return [*(values if issubclass(value, base) else ()), value]


def _errors(classes: list[type[Exception]]) -> str:
    """All errors in one table."""
    rows = [
        f"| `{one.__name__}` | {', '.join(f'`{base.__name__}`' for base in one.__bases__)} | {_cell(_summary(one))} |"
        for one in classes
    ]
    return "\n".join(["| error | is a | |", "|---|---|---|", *rows]) + "\n"


def _member(key: str, member: object) -> str:
    return key if isinstance(member, property | cached_property) else f"{key}()"


def _summary(value: object) -> str:
    """The first sentence of a docstring."""
    return inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]


def _parts(value: object) -> tuple[str, dict[str, str], str]:
    """The docstring of a value: its text, its sections by name, its example."""
    text, sections, example = [], {}, []
    name = ""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(value.__doc__ or "")):
        heading, _, rest = block.partition("\n")
        if heading.rstrip(":") in SECTIONS and heading.endswith(":"):
            name = heading.rstrip(":")
            sections[name] = rest
        elif block.startswith(">>>"):
            example.append(block)
        elif name and block.startswith(" "):
            sections[name] += f"\n{block}"
        else:
            text.append(block)
    return "\n\n".join(text) + "\n", sections, "\n".join(example)


def _signature(name: str, function: Callable[..., Any]) -> str:
    """How a function is called, one argument a line where it is long."""
    words, keyword = [], False
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not keyword:
            words.append("*")
            keyword = True
        stars = "**" if one.kind is one.VAR_KEYWORD else ""
        type_ = f": {one.annotation}" if one.annotation is not one.empty else ""
        default = f" = {one.default!r}" if one.default is not one.empty else ""
        words.append(_broken(f"{stars}{one.name}{type_}{default}"))
    gives = inspect.signature(function).return_annotation
    tail = f") -> {gives}"
    line = f"{name}({', '.join(words)}{tail}"
    return line if len(line) <= WIDEST else "\n".join([f"{name}(", *(f"    {word}," for word in words), tail])


def _broken(word: str) -> str:
    """An argument whose type is long, over several lines."""
    lines = [""]
    for part in re.split(r"(?<=\|) ", word):
        if lines[-1].strip() and len(lines[-1]) + len(part) > WIDEST - 8:
            lines.append("    ")
        lines[-1] += f"{part} " if part.endswith("|") else part
    return "\n    ".join(line.rstrip() for line in lines)


def _example(example: str) -> list[str]:
    return [f"```pycon\n{example}\n```\n"] if example else []


def _sections(sections: dict[str, str], what: str = "argument") -> list[str]:
    """Arguments and errors as tables."""
    blocks = []
    for name, heading in (("Args", what), ("Raises", "raises")):
        if name in sections:
            rows = [f"| `{key.replace(', ', '`, `')}` | {_cell(text)} |" for key, text in _entries(sections[name])]
            blocks.append("\n".join([f"| {heading} | |", "|---|---|", *rows]) + "\n")
    if "Returns" in sections:
        blocks.append(f"Returns {' '.join(sections['Returns'].split())}\n")
    return blocks


def _entries(text: str) -> list[tuple[str, str]]:
    """`name: words` for each entry of a section; lines that are indented further belong to the entry before them."""
    indent = min(len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip())
    entries: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line[indent:].startswith(" ") and entries:
            entries[-1] = (entries[-1][0], f"{entries[-1][1]} {line.strip()}")
        elif line.strip():
            key, _, words = line.strip().partition(": ")
            entries.append((key, words))
    return entries


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    PAGE.write_text(reference(), encoding="utf-8")
