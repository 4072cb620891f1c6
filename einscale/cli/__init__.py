"""The command line: one thin file per command group, each imported only when its command runs.

A command parses flags, calls the library, and hands the result to `report`. What every command shares is here: which
commands there are, and how an error becomes one message on stderr and an exit status (0 done, 1 the answer is no, 2 the
request cannot be understood).
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from einscale.errors import EinscaleError, InfeasibleError, UsageError, VerificationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "layer": ("layer", "Price every kind of layer of a model under a strategy."),
    "compare": ("compare", "Price a model under several strategies, and say why they differ."),
    "train": ("train", "Price one training step on a cluster, and say whether it fits."),
    "infer": ("infer", "Price requests: prefill, decode, memory, throughput, money."),
    "plan": ("plan", "Plan one sharded einsum and price it."),
    "explain": ("plan", "Plan one sharded einsum and say why."),
    "shard": ("shard", "Draw who holds which part of a tensor."),
    "notation": ("notation", "Write a spec in every notation; decode XLA's warnings."),
    "program": ("models", "Print a model's programs as text."),
    "model": ("models", "Count a model's parameters."),
    "models": ("models", "List the models known by name."),
    "strategies": ("strategies", "List the strategies known by name, or show one."),
    "hardware": ("hardware", "List the hardware known by name, or show one system."),
    "collective": ("collective", "Price one collective on its own, over algorithms and sizes."),
    "schema": ("schema", "Print the JSON Schema of a document."),
}
"""Command -> (the module of this package that has a function of that name, one line for the overview)."""

ANSWERED, NO, NOT_UNDERSTOOD = 0, 1, 2
INTERRUPTED = 130

GONE = {
    "--output": ("--out", "`-o FILE`, or `--out FILE`, writes to a file"),
    "--dtype": ("--precision", "`--precision` says it: bf16, fp8, fp32, ..., or bf16-pure for one type throughout"),
}
"""Options of earlier versions -> the option that took their place, and what to write instead."""

QUOTES = "put the whole spec in single quotes, 'B/x D, D F -> B/x F': the shell itself reads blanks and > * ? { }"


def main() -> None:
    """Run the command line of this process and leave with its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: nobody reads it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _close_stdout()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command; results go to stdout, one clear message to stderr where there are none.

    Args:
        arguments: the words after `einscale`.

    Returns:
        the exit status.
    """
    try:
        return _dispatch(list(arguments))
    except (VerificationError, InfeasibleError) as error:
        return _fail(error, NO)
    except EinscaleError as error:
        return _fail(error)
    except BrokenPipeError:
        _close_stdout()
        return ANSWERED
    except SystemExit as left:
        if "_EINSCALE_COMPLETE" in os.environ:  # typer answers the shell's request for completions and leaves
            return left.code if isinstance(left.code, int) else ANSWERED
        _close_stdout()  # typer leaves like that only where the reader of stdout has
        return ANSWERED
    except KeyboardInterrupt:
        return _fail(UsageError("interrupted"), INTERRUPTED)
    except MemoryError:
        return _fail(UsageError("out of memory: the request is too large for this machine"))
    except OSError as error:
        where = f" `{error.filename}`" if error.filename else ""
        return _fail(UsageError(f"cannot read or write{where}: {error.strerror or error}"))
    except Exception as error:
        return _unexpected(error)


def _dispatch(arguments: list[str]) -> int:
    """Hand the arguments to typer, with no more commands loaded than are asked for."""
    if _asks_for_version(arguments):
        from einscale.version import __version__

        print(f"einscale {__version__}")
        return ANSWERED
    name = _command_name(arguments)
    if name == "help":
        at = arguments.index("help")
        asked = arguments[at + 1 :] if arguments[at + 1 :] != ["help"] else []
        arguments = [*arguments[:at], *asked, "--help"]
        name = _command_name(arguments)
    if name is not None and name not in COMMANDS and not _asks_for_shell(arguments):
        raise UsageError(f"no such command `{name}`", hint=did_you_mean(name, COMMANDS, "the commands are"))

    from typer.main import get_command

    from einscale.cli.application import application

    command: Any = get_command(application([name]) if name in COMMANDS else application(COMMANDS, listed=True))
    status = command.main(
        args=arguments or ["--help"], prog_name="einscale", standalone_mode=False, **_defaults(command, name, arguments)
    )
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status if isinstance(status, int) else ANSWERED


def _defaults(command: Any, name: str | None, arguments: list[str]) -> dict[str, Any]:
    """What the user's files say of a command's options, as typer takes it."""
    if name not in COMMANDS or name is None or {"--help", "-h"} & {*arguments}:
        return {}
    from einscale.cli import settings

    options = {
        flag.removeprefix("--"): settings.KnownOption(
            parameter.name,
            flag=bool(getattr(parameter, "is_flag", False)),
            several=bool(getattr(parameter, "multiple", False)),
            variable=parameter.envvar or "",
        )
        for parameter in command.commands[name].params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    chosen = settings.defaults(name, options, tuple(COMMANDS))
    if not chosen:
        return {}
    values = {key: list(one.value) if isinstance(one.value, tuple) else one.value for key, one in chosen.items()}
    return {"default_map": {name: values}, "obj": {settings.DEFAULTS: chosen}}


def _command_name(arguments: list[str]) -> str | None:
    """The first word that is no flag and belongs to none."""
    words = iter(arguments)
    for word in words:
        if word == "--color":
            next(words, None)
        elif not word.startswith("-"):
            return word
    return _completed_command()


def _completed_command() -> str | None:
    """The command whose words the shell asks to complete: with it alone, the answer comes sooner."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    words = line.split()[1:] if "_EINSCALE_COMPLETE" in os.environ else []
    return words[0] if len(words) > 1 and words[0] in COMMANDS else None


def _asks_for_version(arguments: list[str]) -> bool:
    """Whether the version is asked for: alone, or after a command."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(word in ("--version", "-V") for word in words)


def _asks_for_shell(arguments: list[str]) -> bool:
    """Whether the next word is the name of a shell, not of a command."""
    return arguments[0] in ("--install-completion", "--show-completion")


def _fail(error: EinscaleError, status: int = NOT_UNDERSTOOD) -> int:
    """Say what is wrong on stderr."""
    from einscale.cli.output import write

    with contextlib.suppress(OSError):  # where nobody reads stderr, the exit status still tells
        write(sys.stderr, f"error: {error}\n")
    return status


def _unexpected(error: Exception) -> int:
    """A usage error of typer's in our words; anything else is a fault of einscale and says so."""
    if hasattr(error, "format_message"):
        return _fail(_usage_error(error))
    if os.environ.get("EINSCALE_TRACEBACK"):
        raise error
    return _fail(
        UsageError(
            f"einscale failed on this request ({type(error).__name__}: {error}); this is a fault of einscale",
            hint="set EINSCALE_TRACEBACK=1 to see where, and please report it",
        )
    )


def _usage_error(error: Any) -> UsageError:
    """A usage error as typer raises it -> ours, with the near miss of a misspelt flag."""
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "einscale")
    parameters = context.command.params if context is not None else []
    flag = getattr(error, "option_name", None)
    message = str(error.format_message()).rstrip(".").replace("'", "`")
    message = message[:1].lower() + message[1:]
    if isinstance(flag, str) and "no such option" in message:
        if flag.startswith("->"):
            return UsageError("`->` stands alone", hint=QUOTES)
        options = ["--help", *(name for parameter in parameters for name in parameter.opts if name.startswith("--"))]
        heir, told = GONE.get(flag, ("", ""))
        hint = told if heir in options else did_you_mean(flag, options, "its options are")
        return UsageError(f"`{path}` has no option `{flag}`", hint=hint)
    takes_spec = any(parameter.name == "spec" for parameter in parameters)
    if "unexpected extra argument" in message and takes_spec:
        return UsageError(message, hint=QUOTES)
    if "missing option `--mesh" in message:
        return UsageError(
            f"`{path}` needs a mesh", expected="its axes, major to minor, for example --mesh data=8,model=8"
        )
    return UsageError(message, hint=f"`{path} --help` shows how it is called")


def _close_stdout() -> None:
    """Stop writing to a pipe nobody reads any more, so that the interpreter does not complain when it leaves."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
