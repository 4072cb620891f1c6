"""The pipeline simulation on arrays against the scalar one, and memory as forms against the walk of an order."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einscale.errors import ScheduleError
from einscale.schedule import (
    SCHEDULES,
    alive_forms,
    check_schedule,
    find_schedule,
    most_alive,
    order,
    pipeline_times,
    placement,
    run_schedule,
    schedule_names,
    simulate,
    steady,
)
from einscale.schedule.compiled import compile_schedule

NAMES = schedule_names()
Numbers = tuple[str, int, int, int]


def legal(name: str, stages: int, microbatches: int, chunks: int) -> bool:
    try:
        check_schedule(name, stages, microbatches, chunks)
    except ScheduleError:
        return False
    return True


def chunks_of(name: str, otherwise: int) -> int:
    return find_schedule(name).chunks_fixed or otherwise


def legal_numbers(name: str, stages: int, microbatches: int, chunks: int) -> Numbers:
    """The numbers nearest above these that a schedule follows."""
    chunks = chunks_of(name, max(2, chunks))
    if name == "dualpipe":
        stages += stages % 2
        microbatches = max(2 * stages, microbatches + microbatches % 2)
    if name == "dualpipev":
        microbatches = max(2 * stages, microbatches)
    if name == "interleaved":
        microbatches = -(-microbatches // stages) * stages
    return name, stages, microbatches, chunks


def times_of(numbers: Numbers, rng: np.random.Generator, count: int, spread: float = 1.0) -> tuple[Any, ...]:
    """Random seconds of every chunk, each an array: forward, backward, weight; and of a hop."""
    _, stages, _, chunks = numbers
    base = rng.uniform(0.5, 1.5, (3, count))
    forward, inputs, weight = (
        [base[kind] + spread * rng.uniform(0, 0.5, count) for _ in range(stages * chunks)] for kind in range(3)
    )
    backward = [one + other for one, other in zip(inputs, weight, strict=True)]
    return forward, backward, weight, rng.choice([0.0, 0.01, 0.4], count)


def member(times: tuple[Any, ...], index: int) -> tuple[list[list[float]], float]:
    """One problem's seconds as plain floats."""
    *lists, send = times
    return [[float(row[index]) for row in rows] for rows in lists], float(send[index])


# --- arrays are the scalar simulation


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_the_scalar_simulation_to_the_bit(name: str) -> None:
    """All p <= 8, several v, m up to 32, random times, hops, blocks that hide, senders that wait: equal, not nearly."""
    rng = np.random.default_rng(1)
    compared = 0
    for stages in range(1, 9):
        for microbatches in (1, 2, 3, 5, 8, 16, 24, 32):
            for chunks in (1, 2, 3, 4):
                numbers = (name, stages, microbatches, chunks)
                if not legal(*numbers):
                    continue
                times = times_of(numbers, rng, 5, float(rng.choice([0, 1e-9, 1])))
                options = {"blocking": bool(rng.random() < 0.3), "overlap": float(rng.choice([0, 0.3, 1]))}
                found = pipeline_times(*numbers, *times[:3], send=times[3], **options)
                index = int(rng.integers(5))
                lists, send = member(times, index)
                whole = simulate(order(*numbers), *lists, send=send, **options)
                assert found.makespan[index] == whole.makespan
                assert tuple(end[index] for end in found.ends) == tuple(ends[-1] for ends in whole.ends)
                assert tuple(start[index] for start in found.starts) == tuple(starts[0] for starts in whole.starts)
                assert tuple(busy[index] for busy in found.busy) == whole.busy
                assert run_schedule(*numbers, *lists, send=send, **options).makespan == whole.makespan
                assert np.all(found.exact)
                compared += 1
    assert compared >= 14  # so few have the microbatches that dualpipe wants


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.integers(1, 6),
    st.integers(1, 400),
    st.integers(1, 4),
    st.integers(0, 2**31),
    st.sampled_from((0.0, 1e-3, 1.0)),
)
def test_every_row_is_what_it_would_be_alone(
    name: str, stages: int, microbatches: int, chunks: int, seed: int, spread: float
) -> None:
    """With any number of microbatches and whatever the others are: to the bit; and the whole simulation to 1e-12."""
    numbers = legal_numbers(name, stages, microbatches, chunks)
    rng = np.random.default_rng(seed)
    times = times_of(numbers, rng, 7, spread)
    found = pipeline_times(*numbers, *times[:3], send=times[3])
    assert np.all(found.exact)
    for index in (0, 6):
        lists, send = member(times, index)
        alone = pipeline_times(*numbers, *lists, send=send)
        assert found.makespan[index] == alone.makespan
        assert [end[index] for end in found.ends] == list(alone.ends)
        assert [busy[index] for busy in found.busy] == list(alone.busy)
    whole = simulate(order(*numbers), *lists, send=send)
    assert alone.makespan == pytest.approx(whole.makespan, rel=1e-12, abs=0)
    assert list(alone.idle) == pytest.approx([alone.makespan - busy for busy in whole.busy], rel=1e-9, abs=1e-9)
    timeline = run_schedule(*numbers, *lists, send=send)
    assert (timeline.makespan, timeline.span) == (
        alone.makespan,
        max(end - start for start, end in zip(alone.starts, alone.ends, strict=True)),
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 5), st.integers(65, 900), st.integers(1, 3), st.integers(0, 2**31))
def test_whole_numbers_stay_exact_however_many_microbatches(
    name: str, stages: int, microbatches: int, chunks: int, seed: int
) -> None:
    numbers = legal_numbers(name, stages, microbatches, chunks)
    rng = random.Random(seed)
    spread = rng.choice([0, 1, 9])
    parts = stages_of(numbers) * numbers[3]
    forward, inputs, weight = ([9 + rng.randint(0, spread) for _ in range(parts)] for _ in range(3))
    backward = [one + other for one, other in zip(inputs, weight, strict=True)]
    options = {"send": rng.choice([0, 1, 5]), "blocking": rng.random() < 0.5}
    found = pipeline_times(*numbers, forward, backward, weight, **options)
    whole = simulate(order(*numbers), forward, backward, weight, **options)
    assert found.makespan == whole.makespan and isinstance(found.makespan, int)
    assert found.busy == whole.busy
    assert found.ends == tuple(ends[-1] for ends in whole.ends)


def stages_of(numbers: Numbers) -> int:
    return numbers[1]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_problems_of_different_microbatches_are_what_they_would_be_alone(
    name: str, stages: int, chunks: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    wanted = [int(rng.choice([rng.integers(1, 40), rng.integers(1, 900)])) for _ in range(4)]
    several = [legal_numbers(name, stages, microbatches, chunks) for microbatches in wanted]
    counts = rng.choice([numbers[2] for numbers in several], 12)
    numbers = several[0]
    times = times_of(numbers, rng, 12, float(rng.choice([0, 1e-3, 1])))
    options: Any = {"blocking": bool(rng.random() < 0.3)}
    found = pipeline_times(*numbers[:2], counts, numbers[3], *times[:3], send=times[3], **options)
    for index in range(0, 12, 3):
        lists, send = member(times, index)
        alone = pipeline_times(*numbers[:2], int(counts[index]), numbers[3], *lists, send=send, **options)
        assert found.makespan[index] == alone.makespan
        assert [row[index] for row in (*found.starts, *found.ends, *found.busy)] == [
            *alone.starts,
            *alone.ends,
            *alone.busy,
        ]
    assert np.all(found.exact)


def test_numbers_and_arrays_may_be_mixed_anyhow() -> None:
    """Seconds in plain numbers, of which one array is a few problems: blocks of two, and problems that leave early."""
    for name in NAMES:
        numbers = legal_numbers(name, 4, 16, 2)
        counts = np.array([16, 400, 80, 400, 128])
        times: tuple[Any, ...] = (1.0, 2.5, 0.75)
        options: Any = {"send": 0.25, "overlap": 0.5}
        found = pipeline_times(name, 4, counts, numbers[3], *times, **options)
        brief = pipeline_times(name, 4, counts, numbers[3], *times, **options, by_device=False)
        assert np.array_equal(found.makespan, brief.makespan) and not brief.ends and len(found.ends) == 4
        for index, count in enumerate(counts.tolist()):
            alone = pipeline_times(name, 4, count, numbers[3], *times, **options)
            assert found.makespan[index] == alone.makespan
            assert [idle[index] for idle in found.idle] == list(alone.idle)


def test_a_number_of_microbatches_that_cannot_be_is_refused_among_others() -> None:
    with pytest.raises(ScheduleError, match=r"must be a whole number, at least 1, not 2\.5"):
        pipeline_times("1f1b", 2, np.array([1, 2.5]), 1, 1, 2)
    with pytest.raises(ScheduleError, match="must be a whole number, at least 1, not nan"):
        pipeline_times("1f1b", 2, np.array([1, np.nan]), 1, 1, 2)
    with pytest.raises(ScheduleError, match="groups of 4 stages, not 10"):
        pipeline_times("interleaved", 4, np.array([8, 10]), 2, 1, 2)


def test_a_mixture_of_numbers_and_arrays_of_any_shape() -> None:
    slow = np.array([[2.0, 3.0, 9.0], [1.0, 4.0, 5.0]])
    found = pipeline_times("1f1b", 2, 8, 1, [1, 1], [2, slow], send=np.array([[0.0], [0.5]]))
    assert found.makespan.shape == found.ends[1].shape == found.busy[0].shape == (2, 3)
    for row in range(2):
        for column in range(3):
            alone = pipeline_times("1f1b", 2, 8, 1, [1, 1], [2, float(slow[row, column])], send=0.5 * row)
            assert found.makespan[row, column] == alone.makespan
    assert found.busy[0].tolist() == [[24.0] * 3] * 2
    with pytest.raises(ScheduleError, match=r"times of different shapes: \(2,\), \(3,\)"):
        pipeline_times("1f1b", 2, 8, 1, [np.ones(2), np.ones(3)], 2)


def test_more_problems_than_are_played_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ("zb-h2", 4, 300, 1)
    times = times_of(numbers, np.random.default_rng(3), 600)
    together = pipeline_times(*numbers, *times[:3], send=times[3])
    monkeypatch.setattr(steady, "AT_ONCE", 256)
    assert np.array_equal(together.makespan, pipeline_times(*numbers, *times[:3], send=times[3]).makespan)


@pytest.mark.parametrize(
    ("times", "options", "words"),
    [
        (([np.array([1.0, -1.0]), 1], 2), {}, "`forward` of chunk 0 cannot take"),
        ((1, [2, np.array([2.0, np.nan])]), {}, "`backward` of chunk 1 cannot take"),
        ((1, 2, [1, np.array([1.0, 3.0])]), {}, "the gradients of weights take"),
        ((1, 2), {"send": np.array([1.0, np.inf])}, "a hop cannot take"),
        (([np.ones(2)] * 3, 2), {}, "`forward` has 3 values for 2 chunks of the model"),
    ],
)
def test_times_that_cannot_be(times: Any, options: Any, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        pipeline_times("1f1b", 2, 8, 1, *times, **options)


def test_a_pace_is_kept_up_for_those_without_a_rhythm_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "LARGEST", 4 * 100)
    forward = [np.array([1000.0, 1000.0]), np.array([1001.0, 1000.0]), 1000.0, np.array([1002.0, 1000.0])]
    found = pipeline_times("zb-h2", 4, 2000, 1, forward, 2000.0, 999.0)
    exact = simulate(order("zb-h2", 4, 2000), [1000.0, 1001.0, 1000.0, 1002.0], 2000.0, 999.0)
    assert found.exact.tolist() == [False, True]
    assert found.makespan[0] == pytest.approx(exact.makespan, rel=1e-3)
    assert found.makespan[1] == simulate(order("zb-h2", 4, 2000), 1000.0, 2000.0, 999.0).makespan


def test_absurd_numbers_are_refused_or_priced_at_once() -> None:
    started = time.process_time()
    assert pipeline_times("gpipe", 8, 10**9, 1, 1, 2).makespan == 3 * (10**9 + 7)
    assert pipeline_times("1f1b", 8, 10**12, 1, 1, 2).makespan == 3 * (10**12 + 7)
    with pytest.raises(ScheduleError, match="too large to simulate"):
        pipeline_times("1f1b", 1000, 10**6, 1, 1, 2)
    with pytest.raises(ScheduleError, match="absurd"):
        pipeline_times("1f1b", 10**7, 10, 1, 1, 2)
    with pytest.raises(ScheduleError, match="groups of 4 stages"):
        pipeline_times("interleaved", 4, 10, 2, 1, 2)
    assert time.process_time() - started < 2


# --- an order that is fixed knows no anomaly


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NAMES), st.integers(1, 6), st.integers(1, 200), st.integers(1, 4), st.integers(0, 2**31), st.data()
)
def test_no_task_can_take_longer_and_the_step_be_shorter(
    name: str, stages: int, microbatches: int, chunks: int, seed: int, data: st.DataObject
) -> None:
    """List scheduling, which picks tasks as devices fall idle, has such anomalies; orders that times do not change
    have none: a step is a maximum of sums of F, B, W and hops."""
    numbers = legal_numbers(name, stages, microbatches, chunks)
    rng = np.random.default_rng(seed)
    few = [[float(row[0]) for row in rows] for rows in times_of(numbers, rng, 1, 0.1)[:3]]
    forward, backward, weight = few
    inputs = [whole - part for whole, part in zip(backward, weight, strict=True)]
    send = 0.1
    chunk = data.draw(st.integers(0, len(forward) - 1))
    more = data.draw(st.sampled_from((1e-6, 1e-2, 1.0)))
    which = data.draw(st.sampled_from(("forward", "inputs", "weight", "send")))

    def longer(values: list[float], what: str) -> list[np.ndarray]:
        return [np.array([value, value + more * (what == which and one == chunk)]) for one, value in enumerate(values)]

    weights, rest = longer(weight, "weight"), longer(inputs, "inputs")
    found = pipeline_times(
        *numbers,
        longer(forward, "forward"),
        [one + other for one, other in zip(rest, weights, strict=True)],
        weights,
        send=np.array([send, send + more * (which == "send")]),
    )
    assert found.makespan[1] >= found.makespan[0] * (1 - 1e-12)


def test_a_step_is_shorter_where_less_of_a_backward_pass_is_waited_for() -> None:
    """Not an anomaly of the order: the same backward pass with more of it put off leaves a shorter B."""
    for name in ("zb-h1", "zb-v", "dualpipev"):
        chunks = chunks_of(name, 1)
        early, late = (pipeline_times(name, 4, 16, chunks, 1.0, 2.0, part).makespan for part in (0.5, 0.6))
        assert late < early
    assert len({pipeline_times("interleaved", 4, 16, 2, 1.0, 2.0, part).makespan for part in (0.0, 0.5, 0.9)}) == 1


# --- compiled orders


@pytest.mark.parametrize("name", NAMES)
def test_one_compiled_order_serves_every_number_of_microbatches(name: str) -> None:
    for stages in (2, 4, 8):
        numbers = legal_numbers(name, stages, 40 * stages, 3)
        compiled, blocks = compile_schedule(*numbers)
        more, others = compile_schedule(name, stages, 400 * stages, numbers[3])
        if find_schedule(name).two_phases:
            assert not compiled.block  # it grows at both ends and has no steady state
            continue
        assert more is compiled and others - blocks == 360 * stages // compiled.every
        tasks = sum(map(len, order(*numbers)))
        doubled = [sum(len(compiled.durations[event[1]][0]) for event in part) for part in parts_of(compiled)]
        assert doubled[0] + blocks * doubled[1] + doubled[2] == tasks
        assert compiled.fewest <= 3 * stages


def parts_of(compiled: Any) -> tuple[Any, ...]:
    return compiled.prologue, compiled.block, compiled.epilogue


# --- memory as forms


def walked(tasks: Any, saved: list[int], working: list[int]) -> int:
    """The most a device has alive while a backward pass runs, found by walking its order."""
    split = {(task.microbatch, task.chunk) for task in tasks if task.kind == "W"}
    alive: set[tuple[int, int]] = set()
    most = None
    for task in tasks:
        here = (task.microbatch, task.chunk)
        if task.kind == "F":
            alive.add(here)
        if task.kind == "B":
            amount = sum(saved[chunk] for _, chunk in alive) + working[task.chunk]
            most = amount if most is None else max(most, amount)
        if task.kind == ("W" if here in split else "B"):
            alive.remove(here)
    assert most is not None and not alive
    return most


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(NAMES), st.integers(1, 6), st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**31))
def test_the_largest_form_is_the_peak_of_the_order(
    name: str, stages: int, microbatches: int, chunks: int, seed: int
) -> None:
    numbers = legal_numbers(name, stages, microbatches, chunks)
    rng = random.Random(seed)
    parts = numbers[1] * numbers[3]
    letters = [rng.choice("abc") for _ in range(parts)]
    of_kind = {letter: (rng.randint(0, 10**12), rng.randint(-(10**12), 10**12)) for letter in "abc"}
    free = [(rng.randint(0, 10**12), rng.randint(-(10**12), 10**12)) for _ in range(parts)]
    for contents, amounts in ((None, free), (letters, [of_kind[letter] for letter in letters])):
        saved, working = ([amount[which] for amount in amounts] for which in (0, 1))
        forms = alive_forms(*numbers, contents)
        for device, tasks in enumerate(order(*numbers)):
            most, index = most_alive(forms[device], saved, working)
            assert most == walked(tasks, saved, working)
            form = forms[device][index]
            held = dict(zip(form.chunks, form.counts, strict=True))
            assert most == sum(count * saved[chunk] for chunk, count in held.items()) + working[form.work]


def test_forms_on_arrays_are_those_of_each_member() -> None:
    rng = np.random.default_rng(5)
    numbers = ("interleaved", 4, 32, 3)
    saved = [rng.integers(0, 10**12, 50).astype(float) for _ in range(12)]
    working = [rng.integers(-(10**12), 10**12, 50).astype(float) for _ in range(12)]
    for forms in alive_forms(*numbers):
        most, index = most_alive(forms, saved, working)
        for one in range(50):
            alone = most_alive(forms, [int(row[one]) for row in saved], [int(row[one]) for row in working])
            assert (int(most[one]), int(index[one])) == alone


def test_few_forms_are_left() -> None:
    """One a device of one chunk; at most four of a pipeline whose middle chunks are alike."""
    assert all(len(forms) == 1 for forms in alive_forms("zb-h2", 8, 64))
    for numbers in (("interleaved", 8, 64, 4), ("zb-v", 8, 64, 2), ("dualpipe", 8, 64, 1), ("dualpipev", 8, 64, 2)):
        parts = numbers[1] * numbers[3]
        forms = alive_forms(*numbers, ["first", *["middle"] * (parts - 2), "last"])
        assert max(map(len, forms)) <= 4
        assert [len(found) for found in forms[2:6]] == [1] * 4
    assert alive_forms("gpipe", 2, 10**9)[1][0].counts == (10**9,)
    assert alive_forms("1f1b", 4, 100) is alive_forms("PipeDream-Flush", 4, 10**6)  # kept


def test_forms_name_the_chunks_of_their_device() -> None:
    for schedule in SCHEDULES:
        numbers = legal_numbers(schedule.name, 4, 16, 3)
        for forms, held in zip(alive_forms(*numbers), placement(schedule.name, 4, numbers[3]), strict=True):
            assert all(form.chunks == held and form.work in held for form in forms)
            assert all(form.counts[held.index(form.work)] > 0 for form in forms)
            assert max(form.in_flight for form in forms) <= 16 * len(held)
    with pytest.raises(ScheduleError, match="`contents` has 3 values for 4 chunks of the model"):
        alive_forms("1f1b", 4, 8, 1, "abc")
