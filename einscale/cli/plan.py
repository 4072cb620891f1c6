"""`einscale plan` and `einscale explain`: one sharded einsum, planned, priced, proven, and told why."""

from __future__ import annotations

from einscale.cli.groups import command
from einscale.cli.options import Output, QuestionOptions, Verify


@command
def plan(question: QuestionOptions, *, verify: Verify = False, output: Output) -> None:
    """Plan one sharded einsum: its collectives, FLOPs, bytes and time on each device.

    einscale plan 'B/x D, D/x F -> B/x F' --mesh x=4 -s B=64,D=128,F=256
    """
    _answer(question, output, verify, explain=False)


@command
def explain(question: QuestionOptions, *, verify: Verify = False, output: Output) -> None:
    """Plan one sharded einsum and say why: causes, formulas filled in, what avoids each move, alternatives.

    einscale explain 'B/x D, D/x F -> B/x F' --mesh x=4 -s B=64,D=128,F=256
    """
    _answer(question, output, verify, explain=True)


def _answer(question: QuestionOptions, output: Output, verify: bool, *, explain: bool) -> None:
    """Plan what the flags ask, and write it."""
    from einscale.api.plan import plan as ask
    from einscale.cli.output import emit

    destination = output.destination()
    result = ask(**question.arguments(), verify=verify)
    emit(
        destination,
        lambda: result.to_dict(explain=explain),
        lambda: result.to_report(explain=explain, units=output.units),
    )
