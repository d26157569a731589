"""Samples in processes of one thread each: threads of one process wait for each other.

A denoiser call is many small operations, after each of which threads meet. Processes never do, and
what else runs on the machine costs them no more than its share.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adit_plugins import processes

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.structures.samples import Sample

FEWEST = 128  # samples a process, whose start takes a few seconds
LONGEST = 7 * 24 * 3600.0  # seconds for a chunk; a score of one's own may take long


@dataclass(frozen=True)
class _Chunk:
    generator: ADiTGenerator
    indices: range


def num_processes(generator: ADiTGenerator, num: int | None) -> int:
    """How many processes a generator's samples are made in; 0 is this one.

    With `workers=None` there is one a core, where so many samples are wanted that it pays.
    """
    if generator.workers is not None:
        return generator.workers
    if num is None or generator.model.device.type != "cpu" or callable(generator.steer):
        return 0
    count = min(processes.available_cores(), num // FEWEST)
    return count if count > 1 else 0


def samples_of(
    generator: ADiTGenerator,
    num: int,
    start: int,
    workers: int,
    report: Callable[[int], None],
) -> Iterator[Sample]:
    """Yield samples `start` to `start + num - 1` in order, the same as without processes.

    Raises:
        ValueError: the model cannot follow the recipe.
        RuntimeError: a process has died over its samples.
        WorkerStartError: none can start.
    """
    from adit_plugins.generation.recipe import used_precision

    rounds = math.ceil(num / (workers * generator.at_once(num)))
    size = math.ceil(num / (workers * rounds)) if generator.batch_size is None else None
    size = size or generator.at_once()
    # One decision for all: processes that time it each for itself might disagree.
    precision: Any = used_precision(generator.precision, generator.model)
    recipe = dataclasses.replace(generator, workers=0, precision=precision)
    stop = start + num
    chunks = [
        _Chunk(recipe, range(first, min(first + size, stop))) for first in range(start, stop, size)
    ]
    done: dict[int, int] = {}  # by chunk
    ahead: dict[int, list[Sample]] = {}  # chunks that came before an earlier one
    turn = 0
    for place, said in processes.stream(_make, chunks, LONGEST, workers):
        if isinstance(said, processes.End):
            if said.problem:
                raise _failure(chunks[place], said.problem)
        elif isinstance(said, int):
            done[place] = said
            report(sum(done.values()))
        else:
            ahead[place] = said
            while turn in ahead:
                yield from ahead.pop(turn)
                turn += 1


def _make(chunks: Sequence[_Chunk]) -> Iterator[processes.At | processes.Part]:
    """In a worker: the number of samples so far while they are made, then all of a chunk."""
    for place, chunk in enumerate(chunks):
        yield processes.At((place,))

        def told(done: int, _: int | None, place: int = place) -> None:
            processes.tell(processes.Part(place, done))

        try:
            made = chunk.generator.samples(len(chunk.indices), chunk.indices.start, told)
        except Exception as error:  # noqa: BLE001 - raised again where the samples are wanted
            yield processes.Part(place, processes.End(f"{type(error).__name__}: {error}"))
        else:
            yield processes.Part(place, made)
            yield processes.Part(place, processes.End())


def _failure(chunk: _Chunk, problem: str) -> Exception:
    kind, _, text = problem.partition(": ")
    if kind == "ValueError":
        return ValueError(text)
    return RuntimeError(
        f"{problem}, at samples {chunk.indices.start}..{chunk.indices.stop - 1}; "
        "take fewer workers, or a smaller batch_size if memory ran out"
    )
