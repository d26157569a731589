"""What can be asked of a campaign's store: counts, columns, rows, candidates."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins.campaign.settings import DONE, KNOWN_STRUCTURE, WAITING, Settings
from adit_plugins.campaign.stored_rows import ROW, stored_row

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

PAGE = 500  # rows in memory while all are read


class Queries(ABC):
    """Answers from the tables that ASE makes of rows and their columns.

    Attributes:
        folder: of the campaign.
        metadata: of its database.
    """

    folder: Path
    metadata: dict[str, Any]

    @abstractmethod
    def _query(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows at once."""

    def count(self, key: str, value: str | float) -> int:
        """Return the number of rows with a value in a column."""
        table = "text_key_values" if isinstance(value, str) else "number_key_values"
        query = f"SELECT COUNT(*) FROM {table} WHERE key=? AND value=?"  # noqa: S608 (two names)
        return int(self._query(query, (key, value))[0][0])

    def num_waiting(self, stage: str | None = None) -> int:
        """Return the number of rows that wait for a stage, or for any."""
        return sum(self.count("stage", each) for each in ((stage,) if stage else WAITING))

    def find(self, key: str, value: str) -> list[int]:
        """Return the ids of rows with a text in a column, in order."""
        query = "SELECT id FROM text_key_values WHERE key=? AND value=? ORDER BY id"
        return [row[0] for row in self._query(query, (key, value))]

    def largest(self, key: str) -> float | None:
        """Return the largest number in a column."""
        query = "SELECT MAX(value) FROM number_key_values WHERE key=?"
        value = self._query(query, (key,))[0][0]
        return None if value is None else float(value)

    def texts(self, key: str) -> dict[int, str]:
        """Return the texts in a column by row."""
        return dict(self._query("SELECT id, value FROM text_key_values WHERE key=?", (key,)))

    def ranked(self, key: str, flag: str, below: float = math.inf) -> list[int]:
        """Return the ids of rows with a true flag, the lowest number in a column first.

        Only of rows whose number lies below a limit.
        """
        # A join of the table with itself takes SQLite time that grows with the square of the rows.
        query = (
            "SELECT id FROM number_key_values WHERE key=? AND value<? AND id IN "
            "(SELECT id FROM number_key_values WHERE key=? AND value=1) ORDER BY value, id"
        )
        return [row[0] for row in self._query(query, (key, below, flag))]

    def row(self, row_id: int) -> AtomsRow:
        """Return one row.

        Raises:
            KeyError: there is none.
        """
        found = list(self.rows(ids=[row_id]))
        if not found:
            raise KeyError(f"The store in {self.folder} has no row {row_id}.")
        return found[0]

    def ids(self) -> list[int]:
        """Return the ids of all rows, in order."""
        return [row[0] for row in self._query("SELECT id FROM systems ORDER BY id")]

    def rows(self, kind: str | None = None, ids: Sequence[int] | None = None) -> Iterator[AtomsRow]:
        """Yield rows, a page in memory at a time; rows may be written meanwhile.

        Args:
            kind: only crystals, or only molecules.
            ids: only these, in this order; None for all, in theirs.
        """
        pages = self._pages() if ids is None else self._chosen(ids)
        for page in pages:
            for values in page:
                row = stored_row(values)
                if kind is None or row["kind"] == kind:
                    yield row

    def _pages(self, columns: str = ROW) -> Iterator[list[tuple[Any, ...]]]:
        query = f"SELECT {columns} FROM systems WHERE id>? ORDER BY id LIMIT {PAGE}"  # noqa: S608
        last = 0
        while page := self._query(query, (last,)):
            yield page
            last = page[-1][0]

    def _chosen(self, ids: Sequence[int]) -> Iterator[list[tuple[Any, ...]]]:
        for start in range(0, len(ids), PAGE):
            part = ids[start : start + PAGE]
            marks = ",".join("?" * len(part))
            query = f"SELECT {ROW} FROM systems WHERE id IN ({marks})"  # noqa: S608 (marks)
            found = {values[0]: values for values in self._query(query, part)}
            yield [found[row_id] for row_id in part if row_id in found]

    def verdicts(self) -> Iterator[dict[str, Any]]:
        """Yield the columns of every row in order: all that counting needs."""
        for page in self._pages("id, key_value_pairs"):
            for _, text in page:
                yield json.loads(text)

    def candidates(self, num: int | None = None) -> list[int]:
        """Return the ids of the candidates, the lowest energy above the hull first.

        A candidate was structurally valid, unique and novel, and so relaxed; it has its place on
        the hull, is no duplicate of a better one (`mark_relaxed_duplicates`), and keeps the
        campaign's `neutral_by` and `max_hull`. Last come those of which the hull knows no
        competing phase: their distance says little.
        """
        settings = Settings(**self.metadata.get("settings", {}))
        below = math.inf if settings.max_hull is None else settings.max_hull
        ids = self.ranked("energy_above_hull", "relaxed", below)
        worse = self.texts("relaxed_duplicate_of")
        ids = [row_id for row_id in ids if row_id not in worse]
        rules = settings.neutral_rules
        if rules is not None:
            found = self.texts("neutral_by")
            ids = [row_id for row_id in ids if found.get(row_id) in rules]
        gaps = self.texts("hull_gap")
        return sorted(ids, key=gaps.__contains__)[:num]

    def num_found(self) -> int:
        """Return the number of candidates that are no known structure."""
        novelty = self.texts("novelty")
        return sum(novelty.get(row_id) != KNOWN_STRUCTURE for row_id in self.candidates())

    def num_judged(self) -> int:
        """Return the number of structures that wait for nothing more."""
        return self.count("stage", DONE)

    @property
    def total(self) -> int:
        """Structures that the campaign, or its shard, is about."""
        return int(self.metadata["total"])

    def found_note(self) -> str:
        """Return, of a campaign with `until`, what was found among how many; else nothing."""
        until = self.metadata.get("settings", {}).get("until")
        if until is None:
            return ""
        found, ranked = self.num_found(), len(self.candidates())
        num, judged = len(self), self.num_judged()
        text = f"{found} candidates that are no known structure, of {judged} judged structures"
        if ranked > found:
            text += f"; {ranked - found} more in the table are known ones"
        if num > judged:
            text += f"; {num - judged} more were made and wait, the funnel counts them as made"
        if found < until:
            more = num > judged or num < self.total
            text += f". Not {until} yet: "
            text += f"--resume {self.folder} goes on" if more else "a larger --num is needed"
        return f"{text}."

    def __len__(self) -> int:
        return int(self._query("SELECT COUNT(*) FROM systems")[0][0])
