"""The blocks of a model dealt out to the chunks of a pipeline."""

from __future__ import annotations

from einscale.errors import ScheduleError
from einscale.schedule.catalogue import check_counts


def layers_per_chunk(
    layers: int, stages: int, chunks: int = 1, first: int | None = None, last: int | None = None
) -> tuple[int, ...]:
    """Blocks in each chunk of the model, in the order a microbatch passes them.

    Blocks need not divide: what is left over goes, one each, to the chunks from the last but one forwards, where fewer
    microbatches are in flight; the first chunk, which also holds the embedding, comes after all of these, and the last,
    which also holds the head, never takes one.

    Args:
        layers: blocks of the model.
        stages: devices along the pipeline.
        chunks: parts of the model a stage holds, copies not counted.
        first: blocks of the first chunk (of the first stage, where a stage is one chunk); 0 leaves it the embedding.
        last: blocks of the last chunk; 0 leaves it the head.

    >>> layers_per_chunk(32, 4), layers_per_chunk(61, 8), layers_per_chunk(61, 8, first=6, last=7)
    ((8, 8, 8, 8), (7, 7, 8, 8, 8, 8, 8, 7), (6, 8, 8, 8, 8, 8, 8, 7))

    Raises:
        ScheduleError: a chunk would be left without a block, or blocks without a chunk.
    """
    check_counts(blocks=layers, stages=stages, chunks=chunks)
    for end, what in ((first, "first"), (last, "last")):
        if end is not None and (isinstance(end, bool) or not isinstance(end, int) or end < 0):
            raise ScheduleError(f"the blocks of the {what} chunk must be a whole number, at least 0, not {end!r}")
    parts = stages * chunks
    given = (first or 0) + (last or 0)
    open_parts = parts - (first is not None) - (last is not None)
    if parts == 1:
        return _single(layers, first, last)
    if open_parts == 0 and given != layers:
        _refuse_two(layers, first or 0, last or 0)
    if given > layers or layers - given < open_parts:
        _refuse(layers, stages, chunks, given, open_parts)
    share, left = divmod(layers - given, open_parts) if open_parts else (0, 0)
    dealt = [share] * parts
    if first is not None:
        dealt[0] = first
    if last is not None:
        dealt[-1] = last
    takers = [*range(parts - 2, 0, -1), *([0] if first is None else [])]
    for chunk in takers[:left]:
        dealt[chunk] += 1
    return tuple(dealt)


def _single(layers: int, first: int | None, last: int | None) -> tuple[int, ...]:
    for value, what in ((first, "first"), (last, "last")):
        if value is not None and value != layers:
            message = f"the only chunk holds all {layers} blocks, its `{what}` cannot be {value}"
            raise ScheduleError(message, expected=str(layers))
    return (layers,)


def _refuse_two(layers: int, first: int, last: int) -> None:
    message = f"the first and the last chunk are the only ones and hold {first} + {last} of {layers} blocks"
    near = [f"last = {layers - first}"] if first <= layers else []
    near += [f"first = {layers - last}"] if last <= layers else []
    raise ScheduleError(message, expected=" or ".join(near) if near else f"at most {layers} in either")


def _refuse(layers: int, stages: int, chunks: int, given: int, open_parts: int) -> None:
    if given:
        message = (
            f"{given} of {layers} blocks in the first and last chunk leave {layers - given} for the other {open_parts}"
        )
        if layers >= open_parts:
            raise ScheduleError(message, expected=f"at most {layers - open_parts} in the first and last together")
    else:
        parts = f"{stages} stages" + (f" of {chunks} chunks" if chunks > 1 else "")
        message = f"{parts} want at least {stages * chunks} blocks, the model has {layers}"
    near = [f"at most {layers // chunks} stages of {chunks} chunks" if chunks > 1 else f"at most {layers} stages"]
    if layers < chunks:
        near = []
    if layers >= stages and chunks > 1:
        near.append(f"at most {layers // stages} chunks a stage" if layers >= 2 * stages else "1 chunk a stage")
    raise ScheduleError(message, expected=", or ".join(near) if near else f"at most {layers} stages of 1 chunk")
