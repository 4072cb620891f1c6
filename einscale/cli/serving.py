"""Options of requests: the groups that `infer` and `compare --for serve` take alike."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from einscale.cli.groups import Options
from einscale.cli.options import Price, number


class Prompts(Options, frozen=True, kw_only=True):
    """What a request is, and what a device costs."""

    prompt: Annotated[str | None, typer.Option("--prompt", metavar="INT", help="Tokens of each prompt; else 2048.")] = (
        None
    )
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="INT", help="Tokens generated of each, the first by the prefill; else 256."),
    ] = None
    price_per_hour: Price = None

    def arguments(self) -> dict[str, Any]:
        """What `einscale.infer` calls these."""
        return {
            "prompt": number(self.prompt, "prompt"),
            "output": None if self.output is None else _tokens(self.output),
            "price_per_hour": self.price_per_hour,
        }


class Engine(Options, frozen=True, kw_only=True):
    """How an instance takes requests in, and how it keeps them."""

    chunk: Annotated[
        str | None,
        typer.Option("--chunk", metavar="INT", help="Tokens of each prompt that are read at a time; else all at once."),
    ] = None
    microbatches: Annotated[
        str | None,
        typer.Option("--microbatches", metavar="INT", help="Parts of the batch, for a mesh with an axis pipe."),
    ] = None
    page: Annotated[
        str, typer.Option("--page", metavar="INT", help="Tokens in a page of the cache; 1 for a cache without pages.")
    ] = "16"
    memory_share: Annotated[
        float, typer.Option("--memory-share", metavar="SHARE", help="Share of the device's memory that may be used.")
    ] = 1.0

    def arguments(self) -> dict[str, Any]:
        """What `einscale.infer` calls these."""
        return {
            "chunk": number(self.chunk, "chunk"),
            "microbatches": number(self.microbatches, "number of microbatches"),
            "page": number(self.page, "page"),
            "memory_share": self.memory_share,
        }


def _tokens(text: str) -> int:
    """Tokens of output; a file is meant by another flag here."""
    from einscale.errors import SizeError
    from einscale.units import parse_size

    try:
        return parse_size(text, "output")
    except SizeError as error:
        if error.text is not None and not any(sign.isdigit() for sign in text[:1]):
            error.hint = "`--output` is how many tokens are generated; a file is written with `-o FILE`"
        raise
