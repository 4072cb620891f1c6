"""Programs of one's own: those of an `.ein` text, or those that a Python file traces."""

from __future__ import annotations

from itertools import islice
from types import TracebackType

from einscale.errors import EinscaleError, ModelError
from einscale.program.text import parse_programs
from einscale.program.values import Program


def read_programs(path: str, text: str) -> tuple[Program, ...]:
    """Programs of the user's own: those that an `.ein` text describes, or that a Python file binds to names.

    Args:
        path: of the file; its ending says which.
        text: what the file holds.

    Raises:
        ModelError: the Python file fails or makes no program.
        NotationError, ProgramError: a fault of the program; the message says in which line, and where.
    """
    if not path.endswith(".ein"):
        return _run(path, text)
    try:
        return parse_programs(text)
    except EinscaleError as error:
        raise _located(error, f"{path}: {error.message}", error.text, error.span) from None


def _located(error: EinscaleError, message: str, text: str | None, span: tuple[int, int] | None) -> EinscaleError:
    return type(error)(message, text=text, span=span, expected=error.expected, hint=error.hint)


def _within(error: EinscaleError, text: str, place: tuple[int, int]) -> tuple[str | None, tuple[int, int] | None]:
    """The guilty characters of an error in the file: where the text it speaks of stands in the call, else the call."""
    if error.text is None or error.span is None:
        return text, place
    start = text.find(error.text, *place)
    return (text, (start + error.span[0], start + error.span[1])) if start >= 0 else (error.text, error.span)


def _run(path: str, text: str) -> tuple[Program, ...]:
    """Programs that a Python file binds to names. The file is the user's own code and runs as such."""
    names: dict[str, object] = {"__name__": "einscale_user_program", "__file__": path}
    try:
        exec(compile(text, path, "exec"), names)
    except EinscaleError as error:
        line, span = _place(error.__traceback__, path, text)
        raise _located(error, f"{path}: line {line}: {error.message}", *_within(error, text, span)) from None
    except SyntaxError as error:
        line = error.lineno or 1
        raise ModelError(f"{path}: line {line}: SyntaxError: {error.msg}", text=text, span=_line(text, line)) from None
    except (Exception, SystemExit) as error:
        line, span = _place(error.__traceback__, path, text)
        message = f"{path}: line {line}: {type(error).__name__}: {error}"
        raise ModelError(message, text=text, span=span) from None
    found = tuple(dict.fromkeys(value for value in names.values() if isinstance(value, Program)))
    if not found:
        raise ModelError(f"{path} makes no program", expected="a line such as: block = trace(function, inputs)")
    called = [program.name for program in found]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice is not None:
        raise ModelError(
            f"{path} makes two programs called `{twice}`", expected='a name for each: trace(..., name="mlp")'
        )
    return found


def _place(trace: TracebackType | None, path: str, text: str) -> tuple[int, tuple[int, int]]:
    """Line of a Python file, and place in its text, at which an error came out of it: the innermost such call."""
    line, place = 1, _line(text, 1)
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == path:
            line, place = trace.tb_lineno, _line(text, trace.tb_lineno)
            start, stop, first, last = next(islice(code.co_positions(), trace.tb_lasti // 2, None))
            if start is not None and start == stop and first is not None and last is not None:
                begin = _start(text, start)
                raw = text[begin:].split("\n", 1)[0].encode()
                place = (begin + len(raw[:first].decode()), begin + len(raw[:last].decode()))
        trace = trace.tb_next
    return line, place


def _start(text: str, line: int) -> int:
    """Where a line begins."""
    return sum(len(one) + 1 for one in text.split("\n")[: line - 1])


def _line(text: str, line: int) -> tuple[int, int]:
    """Place of a whole line, without the spaces around it."""
    start = _start(text, line)
    raw = text[start:].split("\n", 1)[0]
    indent = len(raw) - len(raw.lstrip())
    return start + indent, max(start + indent + 1, start + len(raw.rstrip()))
