"""Very many samples in shards: files of a folder, made anywhere and in any order, that go on.

`generation.json` says what is made. A shard is a file of samples and, once that is whole, a record
in `records/`; what has a record is never made again. Which samples a shard holds depends on its
number alone, so neither workers nor machines nor interruptions change them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from adit_model.outputs import replacing
from adit_plugins.generation.keeping import Selection
from adit_plugins.generation.recipe import used_precision
from adit_plugins.outputs import differences
from adit_plugins.processes import LostError
from adit_plugins.structures.entries import Entry
from adit_plugins.structures.reading import iter_entries
from adit_plugins.structures.samples import Sample
from adit_plugins.structures.writers import check_output, write_samples

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator

RECIPE, RECORDS = "generation.json", "records"
TRIES = 3  # of a shard whose worker is lost
# What changes no sample: means, and what every machine may have its own of.
_MEANS = ("workers", "batch_size", "device")


class GenerationError(ValueError):
    """A folder of shards is of another generation, incomplete, or not there."""


@dataclass(frozen=True)
class Shard:
    """One shard, as a worker gets it.

    Attributes:
        generator: of its samples.
        indices: of the seed's sequence.
        path: of the file.
        valid_only: keep only valid samples.
    """

    generator: ADiTGenerator
    indices: range
    path: Path
    valid_only: bool

    @property
    def record(self) -> Path:
        """What says that the shard is whole."""
        return self.path.parent / RECORDS / f"{self.path.stem}.json"


@dataclass(frozen=True)
class ShardedGeneration:
    """A folder of shards, of which each machine may make a part.

    Attributes:
        folder: made if missing.
        generator: of all samples.
        num: samples altogether.
        shard_size: samples of a shard; the last may have fewer.
        valid_only: keep only valid samples.
        suffix: of the files, such as `".extxyz"`.
    """

    folder: Path
    generator: ADiTGenerator
    num: int
    shard_size: int
    valid_only: bool = False
    suffix: str = ".extxyz"

    @classmethod
    def open(
        cls,
        folder: Path,
        generator: ADiTGenerator,
        num: int,
        shard_size: int,
        valid_only: bool = False,
        suffix: str = ".extxyz",
    ) -> ShardedGeneration:
        """Begin a folder, or go on with one.

        Raises:
            GenerationError: the folder holds something else.
            ValueError: the format is not known, or the model cannot follow the recipe.
        """
        check_output(folder.parent / f"{folder.name}{suffix}", generator.kind)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not holds(folder)):
            raise GenerationError(f"{folder} is no folder of shards; choose another --out")
        (folder / RECORDS).mkdir(parents=True, exist_ok=True)
        # One decision for all machines: those that time it each for itself might disagree.
        with FileLock(folder / ".lock"):
            if not holds(folder):
                first: Any = used_precision(generator.precision, generator.model)
                made = cls(
                    folder, dataclasses.replace(generator, precision=first, workers=0), num,
                    shard_size, valid_only, suffix,
                )  # fmt: skip
                with replacing(folder / RECIPE) as temporary:
                    temporary.write_text(json.dumps(made.describe(), indent=2) + "\n")
                return made
        earlier = _description(folder)
        precision = earlier["recipe"]["precision"]
        if generator.precision in ("auto", precision):
            generator = dataclasses.replace(generator, precision=precision)
        generator = dataclasses.replace(generator, workers=0)
        made = cls(folder, generator, num, shard_size, valid_only, suffix)
        made._check(earlier)
        return made

    def describe(self) -> dict[str, Any]:
        """What decides on the samples, as JSON."""
        recipe = {k: v for k, v in self.generator.as_dict().items() if not k.startswith("@")}
        return {
            "recipe": {name: value for name, value in recipe.items() if name not in _MEANS},
            "checkpoint_hash": self.generator.model.hash,
            "num": self.num,
            "shard_size": self.shard_size,
            "valid_only": self.valid_only,
            "suffix": self.suffix,
        }

    def _check(self, earlier: dict[str, Any]) -> None:
        """Refuse to mix samples of two generations.

        Raises:
            GenerationError: they differ; the first difference is named.
        """
        before, now = (
            {**part, **part["recipe"], "recipe": None, "checkpoint": None}  # its hash decides
            for part in (earlier, self.describe())
        )
        if differ := differences(before, now):
            raise GenerationError(
                f"{self.folder} holds another generation: {differ[0]}. Repeat its command, or "
                "choose another --out."
            )

    def shards(self, part: tuple[int, int] = (0, 1)) -> Iterator[Shard]:
        """Yield the shards of one of several machines, in order."""
        first, machines = part
        for number in range(first, self.num_shards, machines):
            start = number * self.shard_size
            yield Shard(
                self.generator,
                range(start, min(start + self.shard_size, self.num)),
                self.folder / f"shard-{number:06d}{self.suffix}",
                self.valid_only,
            )

    @property
    def num_shards(self) -> int:
        """Of all machines."""
        return math.ceil(self.num / self.shard_size)

    def run(
        self,
        executor: Executor,
        part: tuple[int, int] = (0, 1),
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> Counter[str]:
        """Make what is missing; return how many samples were made, written, and left out why.

        Args:
            executor: any; an attribute `num_workers` says how many shards to have at work.
            part: (I, N) for the machine I, from 0, of N.
            report: called with (samples made, samples of this part).

        Raises:
            ValueError: the model cannot follow the recipe.
            LostError: the worker of a shard was lost three times.
        """
        mine = list(self.shards(part))
        total = sum(len(shard.indices) for shard in mine)
        counts: Counter[str] = Counter()
        missing = []
        for shard in mine:
            if shard.record.is_file():
                counts.update(json.loads(shard.record.read_text())["counts"])
            else:
                missing.append(shard)
        report(counts["made"], total)
        for said in _through(executor, missing):
            counts.update(said)
            report(counts["made"], total)
        return counts


def _through(executor: Executor, shards: list[Shard]) -> Iterator[dict[str, int]]:
    """Make shards, never more at once than keep the workers busy."""
    at_once = max(1, 2 * int(getattr(executor, "num_workers", 1)) - 1)
    lost: Counter[Path] = Counter()
    waiting = list(reversed(shards))
    running: dict[Future[dict[str, int]], Shard] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            shard = waiting.pop()
            running[executor.submit(make_shard, shard)] = shard
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            shard = running.pop(future)
            try:
                yield future.result()
            except LostError:
                lost[shard.path] += 1
                if lost[shard.path] == TRIES:
                    raise
                waiting.append(shard)


def make_shard(shard: Shard) -> dict[str, int]:
    """Make the samples of a shard; its file and then its record appear when they are whole."""
    selection = Selection(valid_only=shard.valid_only)
    stream = shard.generator.stream(len(shard.indices), start=shard.indices.start)
    written = write_samples(selection.of(stream), shard.path)
    counts = {"made": selection.made, "written": written.written, **selection.thrown}
    if written.skipped:
        counts["not fit for the format"] = len(written.skipped)
    with replacing(shard.record) as temporary:
        temporary.write_text(json.dumps({"first": shard.indices.start, "counts": counts}) + "\n")
    return counts


def holds(folder: Path) -> bool:
    """Whether a folder is one of shards."""
    return (folder / RECIPE).is_file()


def _description(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        _ = content["recipe"]["precision"], content["num"], content["shard_size"]
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenerationError(f"{folder / RECIPE} is damaged: {error!r}") from error


def read_shards(folder: Path) -> Iterator[Sample]:
    """Yield the samples of all shards in their order, one shard after the other.

    Raises:
        GenerationError: shards are missing, or a file holds fewer samples than its record says.
    """
    told = _description(folder)
    number = math.ceil(told["num"] / told["shard_size"])
    names = [f"shard-{i:06d}" for i in range(number)]
    missing = [n for n in names if not (folder / RECORDS / f"{n}.json").is_file()]
    if missing:
        raise GenerationError(
            f"{folder} lacks {len(missing)} of {number} shards ({missing[0]}, ...); repeat its "
            "`adit generate` to make them"
        )
    for name in names:
        record = json.loads((folder / RECORDS / f"{name}.json").read_text())
        path = folder / f"{name}{told['suffix']}"
        found, written = 0, record["counts"]["written"]
        for entry in iter_entries(path) if written else ():
            found += 1
            yield _sound(path, entry)
        if found != written:
            raise GenerationError(
                f"{path} holds {found} samples and its record says {written}: delete "
                f"{folder / RECORDS / name}.json and repeat `adit generate`"
            )


def _sound(path: Path, entry: Entry) -> Sample:
    if entry.atoms is None:
        raise GenerationError(f"{path}: {entry.name}: {entry.reason}")
    return Sample.from_ase(entry.atoms)
