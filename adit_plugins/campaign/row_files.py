"""The files in which every row of a store has its part, written in one pass over the rows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TextIO

from adit_model.outputs import replacing
from adit_plugins.campaign.endings import COLUMNS as LISTED
from adit_plugins.campaign.endings import STRUCTURES
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.row_texts import MAX_CIFS, RANKING, all_texts
from adit_plugins.campaign.store import Store
from adit_plugins.outputs import without_nan
from adit_plugins.structures.formats import INDEX_COLUMNS
from adit_plugins.structures.selection import INDEX

CANDIDATES = "candidates.json"
RANKED = ("ranking.csv", "ranking.json")
CIFS = "cif"


def write_rows(store: Store, header: dict[str, Any], tally: Tally) -> list[Path]:
    """Write structures, records and the ranked table, and count.

    Args:
        store: of a campaign.
        header: what stands before the records.
        tally: gets every row.

    Returns:
        What was written.
    """
    ranked = store.candidates()
    with ExitStack() as stack:
        frames = _Frames(stack, store.folder)
        records = stack.enter_context(_Records.begun(store.folder / CANDIDATES, header))
        table = stack.enter_context(_Ranking.begun(store.folder)) if ranked else None
        structures = stack.enter_context(_listing(store.folder / STRUCTURES))
        for text in all_texts(store, ranked, None if table is None else table.folder):
            tally.add(text.columns)
            tally.unreadable += not text.num_atoms
            tally.candidates += text.rank is not None
            frames.add(text.frames)
            records.add(text.columns["kind"], text.record)
            structures.writerow(text.listed)
            if table is not None and text.rank is not None:
                table.add(text.rank, text.ranked, text.num_atoms)
    ranked_files = [store.folder / name for name in (*RANKED, CIFS)] if ranked else []
    return [*frames.written, *(store.folder / each for each in (CANDIDATES, STRUCTURES)),
            *ranked_files]  # fmt: skip


@contextmanager
def _listing(path: Path) -> Iterator[Any]:
    """Give a writer of the table of all structures, in the order of the source."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(LISTED)
        yield writer


class _Frames:
    """Structures, generated and relaxed; a file is there if anything is in it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        self._files: dict[str, TextIO] = {}

    @property
    def written(self) -> list[Path]:
        """The files that hold anything."""
        return [self._folder / name for name in self._files]

    def add(self, texts: dict[str, str]) -> None:
        """Append a row to the files that it belongs to, by their names."""
        for name, text in texts.items():
            self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        if name not in self._files:
            temporary = self._stack.enter_context(replacing(self._folder / name))
            self._files[name] = self._stack.enter_context(
                temporary.open("w", encoding="utf-8", newline="\n")
            )
        self._files[name].write(text)


class _Records:
    """Every structure with every verdict, as generated: crystals first, then molecules."""

    def __init__(self, file: TextIO, molecules: TextIO) -> None:
        self._files = {"crystal": file, "molecule": molecules}
        self._between = dict.fromkeys(self._files, "\n")

    @classmethod
    @contextmanager
    def begun(cls, path: Path, header: dict[str, Any]) -> Iterator[_Records]:
        """Give the open file; molecules wait beside it until the crystals are complete."""
        start = json.dumps(without_nan(header), indent=1, allow_nan=False)
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8") as file,
            TemporaryFile("w+", encoding="utf-8", dir=path.parent) as molecules,
        ):
            file.write(start.removesuffix("}").rstrip() + ',\n "crystals": [')
            yield cls(file, molecules)
            file.write('\n ],\n "molecules": [')
            molecules.seek(0)
            shutil.copyfileobj(molecules, file)
            file.write("\n ]\n}\n")

    def add(self, kind: str, record: str) -> None:
        """Append a record."""
        self._files[kind].write(self._between[kind] + record)
        self._between[kind] = ",\n"


class _Ranking:
    """The ranked table as CSV and JSON, and CIFs named by rank and formula.

    Rows come in the order of the store: their places in the table wait in a file until all are
    there.
    """

    def __init__(self, waiting: IO[bytes], folder: Path) -> None:
        self._waiting, self.folder = waiting, folder
        self._places: dict[int, int] = {}
        self._num_atoms: dict[int, int] = {}

    @classmethod
    @contextmanager
    def begun(cls, out: Path) -> Iterator[_Ranking]:
        """Give the table to be filled; it is in order, and complete, at the end."""
        from adit_plugins.structures.writers import check_output

        check_output(out / CIFS)  # a folder that is not ours stays
        with TemporaryFile("w+b", dir=out) as waiting, replacing(out / CIFS) as folder:
            folder.mkdir()
            table = cls(waiting, folder)
            yield table
            table._finish(out)

    def add(self, rank: int, values: str, num_atoms: int) -> None:
        """Take a row of the table, as JSON."""
        self._places[rank] = self._waiting.tell()
        self._waiting.write(values.encode() + b"\n")
        if rank <= MAX_CIFS:
            self._num_atoms[rank] = num_atoms

    def _finish(self, out: Path) -> None:
        with (
            replacing(out / RANKED[0]) as table,
            replacing(out / RANKED[1]) as records,
            table.open("w", encoding="utf-8", newline="") as rows,
            records.open("w", encoding="utf-8") as content,
            (self.folder / INDEX).open("w", encoding="utf-8", newline="") as index,
        ):
            writer, files = csv.writer(rows), csv.writer(index)
            writer.writerow(RANKING)
            files.writerow(INDEX_COLUMNS)
            between = "[\n"
            for rank, line in self._in_order():
                values = json.loads(line)
                writer.writerow(values.values())
                content.write(between + line)
                between = ",\n"
                if rank in self._num_atoms:
                    named = (values[name] for name in ("file", "id", "formula"))
                    files.writerow((*named, self._num_atoms[rank]))
            content.write("\n]\n")

    def _in_order(self) -> Iterator[tuple[int, str]]:
        for rank in sorted(self._places):
            self._waiting.seek(self._places[rank])
            yield rank, self._waiting.readline().decode().rstrip("\n")
