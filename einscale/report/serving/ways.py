"""Ways to serve as tables: a draft that guesses, prefill and decode apart, a sweep, changes with which it would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einscale.report.table import Cell, Column, Row, Table
from einscale.report.words import changes_words
from einscale.serving import DisaggregatedReport, SpeculativeReport, cost_per_million_tokens

if TYPE_CHECKING:
    from einscale.serving.advice import ServingAdvice
    from einscale.serving.run import InferRun


def speculation_table(report: SpeculativeReport) -> Table:
    """A round of guesses and the pass that checks them."""
    columns = (
        Column("guesses", "guesses", "integer"),
        Column("acceptance", "accepted", "percent"),
        Column("draft_seconds", "a guess", "seconds"),
        Column("verify_seconds", "the check", "seconds"),
        Column("round_seconds", "a round", "seconds"),
        Column("tokens_per_round", "its tokens", "ratio"),
        Column("seconds_per_token", "a token", "seconds"),
        Column("speedup", "x faster", "ratio"),
    )
    cells = (
        report.length,
        report.acceptance,
        report.draft.seconds_per_token,
        report.verify_seconds,
        report.round_seconds,
        report.tokens_per_round,
        report.seconds_per_token,
        report.speedup,
    )
    title = (
        f"speculative decoding: {report.draft.instance.model.name} guesses, {report.target.instance.model.name} checks"
    )
    return Table("speculation", title, columns, (Row(cells),))


def apart_tables(report: DisaggregatedReport) -> list[Table]:
    """Instances for prefill and instances for decode, and what is sent between them."""
    columns = (
        Column("side", "side"),
        Column("instances", "instances", "integer"),
        Column("mesh", "each", wrap=True),
        Column("hardware", "of", wrap=True),
        Column("batch", "batch", "integer"),
        Column("seconds", "time", "seconds"),
        Column("requests_per_second", "requests/s", "si"),
        Column("needed_bytes", "memory", "bytes"),
    )
    sides = (
        ("prefill", report.prefill_instances, report.prefill, report.prefill_rate),
        ("decode", report.decode_instances, report.decode, report.decode_rate),
    )
    rows = tuple(
        Row(
            (
                name,
                count,
                str(side.instance.mesh),
                side.instance.system.name,
                side.batch,
                side.seconds,
                count * rate,
                side.memory.needed,
            )
        )
        for name, count, side, rate in sides
    )
    sent = (
        Column("transfer_bytes", "sent", "bytes"),
        Column("transfer_seconds", "its time", "seconds"),
        Column("second_token_seconds", "second token after", "seconds"),
        Column("balance", "prefills a decode", "ratio"),
        Column("devices", "devices", "integer"),
    )
    cells = (
        report.transfer_bytes,
        report.transfer_seconds,
        report.second_token_seconds,
        report.balance,
        report.devices,
    )
    return [
        Table("apart", "prefill and decode apart: requests a second of all instances of a side", columns, rows),
        Table(
            "transfer",
            "the cache of a request on its way; how many prefill instances one that decodes keeps busy",
            sent,
            (Row(cells),),
        ),
    ]


def sweep_table(result: InferRun) -> Table:
    """Decode steps at every batch and context."""
    price, devices = result.asked.price_per_hour, result.instance.devices
    columns = [
        Column("context", "context", "integer"),
        Column("batch", "batch", "integer"),
        Column("seconds_per_token", "a token", "seconds"),
        Column("tokens_per_second", "tokens/s", "si"),
        Column("tokens_per_second_per_device", "a device", "si"),
        Column("tokens_per_second_per_user", "a user", "si"),
    ]
    columns += [Column("million_tokens_price", "million", "si")] if price is not None else []
    columns += [Column("needed_bytes", "memory", "bytes"), Column("fits", "fits", "flag"), Column("pareto", "", "mark")]
    rows = []
    for point in sorted(result.sweep, key=lambda row: (row.context, row.batch)):
        cells: list[Cell] = [
            point.context,
            point.batch,
            point.seconds_per_token,
            point.tokens_per_second,
            point.tokens_per_second_per_device,
            point.tokens_per_second_per_user,
        ]
        cells += [] if price is None else [cost_per_million_tokens(price, devices, point.tokens_per_second)]
        cells += [point.memory.needed, point.memory.fits, point.pareto]
        rows.append(Row(tuple(cells)))
    title = "decode steps; * no other that fits at this context is both faster a token and more tokens a device"
    return Table("sweep", title, tuple(columns), tuple(rows))


def advice_table(result: InferRun, advice: tuple[ServingAdvice, ...]) -> Table:
    """Changes with which it would fit, each priced."""
    columns = (
        Column("change", "change", wrap=True),
        Column("devices", "devices", "integer"),
        Column("first_token_seconds", "first token", "seconds"),
        Column("seconds_per_token", "a token", "seconds"),
        Column("tokens_per_second_per_device", "a device", "si"),
        Column("of_now", "x now", "ratio"),
        Column("needed_bytes", "memory", "bytes"),
    )
    now = result.tokens_per_second_per_device
    rows = tuple(
        Row(
            (
                changes_words(one.changes),
                one.result.devices,
                one.result.first_token_seconds,
                one.result.seconds_per_token or None,
                one.result.tokens_per_second_per_device,
                one.result.tokens_per_second_per_device / now,
                max(memory.needed for memory in one.result.memories),
            )
        )
        for one in advice
    )
    return Table("advice", "changes with which it would fit; tokens of output a second for each device", columns, rows)
