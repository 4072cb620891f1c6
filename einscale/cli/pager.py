"""Long text on a terminal goes through a pager, as git's does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from shutil import get_terminal_size, which

DEFAULT = "less"


def page(text: str) -> bool:
    """Show a text in the user's pager if it is longer than the terminal.

    `EINSCALE_PAGER` names the pager, else `PAGER`, else it is `less`; empty or `cat`, there is none. `less` is told to
    show colours and to leave the text on the screen, unless `LESS` says what it shall do.

    Returns:
        whether it was shown; if not, it is still to be written.
    """
    if not _on_terminal() or text.count("\n") < get_terminal_size().lines:
        return False
    words = pager()
    return bool(words) and _run(words, text)


def pager() -> list[str]:
    """The words of the pager's command; none where there is no pager.

    Raises:
        UsageError: a variable that names it cannot be read.
    """
    import shlex

    from einscale.errors import UsageError

    name = next((name for name in ("EINSCALE_PAGER", "PAGER") if name in os.environ), "")
    try:
        words = shlex.split(os.environ.get(name, DEFAULT))
    except ValueError as error:
        raise UsageError(f"cannot read {name}: {str(error).lower()}", text=os.environ[name]) from error
    return words if words and words != ["cat"] and which(words[0]) else []


def _on_terminal() -> bool:
    """Whether stdout is a terminal of this process that a pager can draw on."""
    try:
        return os.isatty(sys.stdout.fileno()) and os.environ.get("TERM") != "dumb"
    except (OSError, ValueError):
        return False


def _run(words: list[str], text: str) -> bool:
    """Give the text to a pager and wait until its reader is done; Ctrl-C is the pager's business meanwhile."""
    import subprocess

    options = os.environ.get("LESS", "FRX")
    environment = {**os.environ, "LESS": options if "R" in options else f"{options} -R".strip()}
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(OSError):  # the reader left before the end
            process.communicate(text.encode(sys.stdout.encoding or "utf-8"))
        process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return True
