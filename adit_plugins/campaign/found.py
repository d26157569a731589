"""How many candidates there are so far, where their number ends a campaign."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adit_plugins.campaign.duplicates import (
    Duplicates,
    Uniques,
    mark_relaxed_duplicates,
    relaxed_cell,
)
from adit_plugins.campaign.settings import KNOWN_STRUCTURE, Settings
from adit_plugins.campaign.store import Row, Store

if TYPE_CHECKING:
    from ase.db.row import AtomsRow


class Found:
    """Candidates that are no known structure, counted as they come.

    Only the whole store says how many there are, but to judge it after each chunk takes time that
    grows with the square of the rows. So what is new is compared with what counts of its
    composition, and the whole is judged once these are enough: that alone ends the campaign.

    Attributes:
        num: by the last judgement of the whole, and what was new since.
        until: as many are enough; None for a campaign that nothing of this kind ends.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        """Judge what is in the store."""
        self._store, self._settings = store, settings
        self.num, self.until = 0, settings.until
        if self.until is not None:
            self._judge()

    @property
    def is_enough(self) -> bool:
        """Whether the campaign can end."""
        return self.until is not None and self.num >= self.until

    def add(self, changes: Mapping[int, Row]) -> None:
        """Count rows whose relaxations the store has just got, by id."""
        if self.until is None:
            return
        near = [row_id for row_id, row in changes.items() if _is_near(row.columns, self._settings)]
        self._counted.hidden = set(near)
        for row in self._store.rows(ids=near):
            if _counts(row, self._settings):
                self.num += self._counted.is_first(row)
        self._counted.hidden = set()
        self._counted.committed()
        if near and self.is_enough:
            self._judge()

    def _judge(self) -> None:
        """Make the verdict that does not depend on the order in which results came."""
        mark_relaxed_duplicates(self._store, _limit(self._settings))
        self.num = self._store.num_found()
        self._counted = _Counted(self._store, self._settings)


class _Counted(Duplicates):
    """The relaxed crystals that count, each the first of its kind.

    Attributes:
        hidden: rows of the store that have not had their turn.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        super().__init__(store)
        self._settings = settings
        self.hidden: set[int] = set()

    def is_first(self, row: AtomsRow) -> bool:
        """Whether nothing that counts equals this one, which then counts itself."""
        composition = row["composition"]
        if composition not in self._crystals and self._is_alone(composition):
            return True  # its cell is reduced once another comes, by `_load`
        return self.crystal(str(row.id), composition, relaxed_cell(row)) is None

    def _is_alone(self, composition: str) -> bool:
        return len(self._store.find("composition", composition)) == 1

    def _load(self, composition: str) -> dict[int, Uniques]:
        """Go through what the store has of a composition once more."""
        found: dict[int, Uniques] = {}
        for row in self._rows(composition):
            cell = relaxed_cell(row)
            if cell is not None:
                earlier = found.setdefault(len(cell["numbers"]), Uniques())
                if earlier.match(cell) is None:
                    earlier.add(str(row.id), cell)
        return found

    def _rows(self, composition: str) -> Iterator[AtomsRow]:
        ids = [i for i in self._store.find("composition", composition) if i not in self.hidden]
        for row in self._store.rows(ids=ids):
            if _counts(row, self._settings):
                yield row


def _limit(settings: Settings) -> float:
    return math.inf if settings.max_hull is None else settings.max_hull


def _is_near(columns: Mapping[str, Any], settings: Settings) -> bool:
    energy = columns.get("energy_above_hull")
    return energy is not None and float(energy) < _limit(settings)


def _counts(row: AtomsRow, settings: Settings) -> bool:
    """Whether a row is among those that `Store.num_found` counts."""
    columns, rules = row.key_value_pairs, settings.neutral_rules
    return bool(
        columns.get("relaxed")
        and _is_near(columns, settings)
        and (rules is None or columns.get("neutral_by") in rules)
        and columns.get("novelty") != KNOWN_STRUCTURE
        and "relaxed_duplicate_of" not in columns
    )
