"""Writes `docs/cli_reference.md` from the commands themselves: `python docs/generate_cli.py`; a test runs it too."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("cli_reference.md")

HEAD = """\
# Every command and option

Written by `docs/generate_cli.py` from the commands; [the command line](cli.md) says what they share.
"""


def reference() -> str:
    """The page."""
    from typer.main import get_command

    from einscale.cli import COMMANDS
    from einscale.cli.application import application
    from einscale.cli.options import Manner, Output

    commands: Any = get_command(application(COMMANDS))
    common = set(Output.__struct_fields__)
    first = commands.commands["plan"]
    blocks = [HEAD, "## Options of every command\n", *_options([p for p in first.params if p.name in common])]
    manner = ", ".join(f"`--{name}`" for name in Manner.__struct_fields__)
    blocks.append(f"`program` and `schema` print text, and have only {manner} of these; `program` has `--out` too.\n")
    for name, (_, summary) in COMMANDS.items():
        blocks += _command(name, summary, commands.commands[name], common)
    return "\n".join(blocks)


def _command(name: str, summary: str, command: Any, common: set[str]) -> list[str]:
    """The section of one command: what it does, how it is called, its arguments and options."""
    text = inspect.cleandoc(command.help).replace("\b\n", "")
    paragraphs = [part.strip() for part in text.split("\n\n")]
    words = [" ".join(part.split()) for part in paragraphs if not part.startswith("einscale ")]
    examples = [part for part in paragraphs if part.startswith("einscale ")]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    has_common = {"as_json"} <= {one.name for one in command.params}
    options = [one for one in command.params if one not in arguments and not (has_common and one.name in common)]
    usage = " ".join(["einscale", name, *(_place(one) for one in arguments), "[OPTIONS]"])
    blocks = [f"## {name}\n", "\n\n".join(words or [summary]) + "\n", f"```text\n{usage}\n```\n"]
    if examples:
        blocks.append("```text\n" + "\n".join(_broken(line) for line in examples) + "\n```\n")
    return blocks + _options([*arguments, *options])


def _place(argument: Any) -> str:
    """An argument in the line that shows how a command is called."""
    word = argument.metavar.strip("[]") if argument.metavar.endswith("]") else argument.metavar
    return word if argument.required else f"[{word}]"


def _broken(line: str, width: int = 96) -> str:
    """A command over several lines, so that none is clipped."""
    lines = [""]
    for word in line.split(" "):
        if len(lines[-1]) + len(word) > width and word.startswith("-"):
            lines[-1] += "\\"
            lines.append("    ")
        lines[-1] += f"{word} "
    return "\n".join(part.rstrip() for part in lines)


def _options(parameters: list[Any]) -> list[str]:
    """A table of arguments and options."""
    if not parameters:
        return []
    rows = ["| option | takes | default | |", "|---|---|---|---|"]
    for one in parameters:
        argument = one.param_type_name == "argument"
        names = (
            ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts)) if not argument else f"`{_place(one)}`"
        )
        takes = "" if argument or getattr(one, "is_flag", False) else f"`{one.metavar or ''}`"
        cells = (names, takes, _default(one), one.help or "")
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return ["\n".join(rows) + "\n"]


def _default(parameter: Any) -> str:
    """What holds where an option is not given."""
    value = "" if parameter.default in (None, False) or parameter.required else f"`{parameter.default}`"
    if parameter.default is True:
        value = "on"
    if parameter.required:
        value = "required"
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    return ", else ".join(filter(None, (variable, value)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    PAGE.write_text(reference(), encoding="utf-8")
