"""Regions of a program that is being written: `with section(...)` and `with group(...)`."""

from __future__ import annotations

from einscale.errors import ProgramError
from einscale.program.options import check_name
from einscale.program.tracer import ACTIVE


class Region:
    """`with section(...)` and `with group(...)`: marks the statements written inside."""

    def __init__(self, kind: str, name: str) -> None:
        check_name(name, f"{kind} name")
        self.kind = kind
        self.name = name
        self.before = ""

    def __enter__(self) -> None:
        tracer = ACTIVE.get()
        if tracer is None:
            raise ProgramError(f"{self.kind}(`{self.name}`) outside of trace()")
        self.before = getattr(tracer, self.kind)
        setattr(tracer, self.kind, self.name)

    def __exit__(self, *_: object) -> None:
        tracer = ACTIVE.get()
        if tracer is not None:
            setattr(tracer, self.kind, self.before)


def section(name: str) -> Region:
    """Context (`with`) in which the statements written belong to the sub-total `name`."""
    return Region("section", name)


def group(name: str) -> Region:
    """Context (`with`) in which the statements written are fused where the strategy says so."""
    return Region("group", name)
