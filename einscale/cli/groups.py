"""Groups of options as values: a command takes a group, typer sees its options one by one.

A command of many options would name each of them three times: in its signature, in the signatures of its neighbours,
and where it calls the library. Here a group is a frozen value whose fields are the options; `command` writes the flat
signature that typer reads, and hands the function the groups it asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, get_type_hints

import typer
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from einscale.cli.settings import announce


class Options(Struct, frozen=True, kw_only=True):
    """Base of the groups: each field is an `Annotated[type, typer.Option(...)]` or an argument, with its default."""

    def given(self) -> dict[str, str]:
        """The fields that are not as they are by default, and the flag of each."""
        kinds = get_type_hints(type(self), include_extras=True)
        changed = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        return {name: _flag(kinds[name].__metadata__[0]) for name in changed}


def _flag(option: typer.models.OptionInfo) -> str:
    """The first flag of an option; where it is `Annotated`, typer takes that for a default."""
    return next(name for name in map(str, (option.default, *(option.param_decls or ()))) if name.startswith("--"))


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer wants it: its groups taken apart, notes about defaults written before it runs.

    Args:
        function: what a command does; parameters whose type is a group of `Options` stand for the options of the group.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Options]] = {}
    parameters = [_parameter("context", typer.Context)]
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, Options):
            groups[name] = kind
            parameters += _flattened(kind)
        else:
            parameters.append(_parameter(name, kind, parameter.default))

    @wraps(function)
    def run(context: typer.Context, **values: Any) -> None:
        given = announce(context, values)
        taken = {
            name: group(**{key: given.pop(key) for key in group.__struct_fields__}) for name, group in groups.items()
        }
        function(**given, **taken)

    run.__doc__ = "\n\n".join(map(_unwrapped, (function.__doc__ or "").split("\n\n")))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _unwrapped(paragraph: str) -> str:
    """A paragraph of help; an example stays the line that one copies (typer's mark for that is a backspace)."""
    return f"\b\n{paragraph}" if paragraph.strip().startswith("einscale ") else paragraph


def _flattened(group: type[Options]) -> list[inspect.Parameter]:
    """The options of a group as parameters."""
    kinds = get_type_hints(group, include_extras=True)
    return [_parameter(field.name, kinds[field.name], field.default) for field in fields(group)]


def _parameter(name: str, kind: Any, default: Any = NODEFAULT) -> inspect.Parameter:
    """A parameter passed by name, so that those with a default may come before those without."""
    default = inspect.Parameter.empty if default is NODEFAULT else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
