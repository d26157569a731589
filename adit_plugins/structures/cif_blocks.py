"""The data blocks of a CIF, cut apart before anything is parsed.

A damaged block must not cost the others, and a list of 20,000 reflections is no reason to refuse
eight atoms: text fields and loops of measured data do not count towards the size of a structure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from adit_plugins.structures.entries import MAX_CHARACTERS, MAX_LINES

MEASURED_MARK = "_refln_left_out .\n"  # stands for all loops of measured data
_MEASURED = re.compile(r"\s*(?:loop_\s+)?_(?:diffrn_)?(?:refln|pd)[_.]", re.IGNORECASE)
_NEW_ITEM = re.compile(r"\s*(?:_|loop_|data_|save_|#)", re.IGNORECASE)
_LONE_TAG = re.compile(r"\s*_\S+\s*$")


def cif_blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Cut before each `data_` line that is not inside a text field.

    What stands before the first such line is a piece as well. The end of an overlong piece is
    lost, its first `MAX_LINES + 1` lines are kept.
    """
    piece = _Piece()
    for line in lines:
        yield from piece.take(line)
    yield from piece.rest()


class _Piece:
    """One block as it grows."""

    def __init__(self) -> None:
        self.begin([])

    def begin(self, lines: list[str]) -> None:
        self.lines = lines
        self.size = sum(map(len, self.lines))
        self.text_from: int | None = None  # where the open text field began
        self.counted = len(self.lines)
        self.measured = False  # inside a loop of reflections
        self.marked = False

    def take(self, line: str) -> Iterator[list[str]]:
        """Add a line; give back the pieces that it ends."""
        if line.startswith(";"):
            if self.text_from is None:
                self.text_from = len(self.lines)
            elif self.lines and _LONE_TAG.match(self.lines[-1]):
                # This one opens a field, so the one before has lost its end.
                yield from self._reopened()
                self.text_from = len(self.lines)
            else:
                self.text_from = None
        elif self.text_from is None:
            if line[:5].lower() == "data_" and self.lines:
                yield self.lines
                self.begin([])
            if self.measured and not _NEW_ITEM.match(line):
                return
            self.measured = bool(_MEASURED.match(line))
            if self.measured:
                if self.lines and self.lines[-1].strip().lower() == "loop_":
                    self.lines.pop()
                if not self.marked:
                    self.lines.append(MEASURED_MARK)
                    self.marked = True
                return
            self.counted += 1
        self._keep(line)

    def _keep(self, line: str) -> None:
        inside = self.text_from is not None
        full = (
            len(self.lines) - self.counted > MAX_LINES if inside else self.counted > MAX_LINES + 1
        )
        if self.size <= MAX_CHARACTERS and (not full or line.startswith(";")):
            self.lines.append(line)
            self.size += len(line)

    def _reopened(self) -> Iterator[list[str]]:
        """Cut a text field without an end at the `data_` lines in it."""
        assert self.text_from is not None
        borders = [i for i in range(self.text_from, len(self.lines))
                   if self.lines[i][:5].lower() == "data_"]  # fmt: skip
        edges = [0, *borders, len(self.lines)]
        pieces = [self.lines[a:b] for a, b in itertools.pairwise(edges)]
        yield from pieces[:-1]
        self.begin(pieces[-1])

    def rest(self) -> Iterator[list[str]]:
        """What is left at the end of the file."""
        if self.text_from is not None:
            yield from self._reopened()
        if self.lines:
            yield self.lines


def is_too_long(lines: list[str]) -> bool:
    """Return whether a piece has more lines outside of text fields than a structure needs."""
    if len(lines) <= MAX_LINES:
        return False
    inside, count = False, 0
    for line in lines:
        if line.startswith(";"):
            inside = not inside
        count += not inside
    return count > MAX_LINES
