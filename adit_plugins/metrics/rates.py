"""A rate never travels without its numerator, its denominator and what the latter counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rate:
    """One line of a table: `numerator` out of the `denominator` things called `of`.

    Attributes:
        name: what is counted.
        numerator: how many are.
        denominator: out of how many.
        of: what the denominator counts, such as `"given"` or `"structurally valid"`.
        note: what a reader must know, such as the potential behind an energy.
    """

    name: str
    numerator: int
    denominator: int
    of: str
    note: str = ""

    @property
    def share(self) -> float | None:
        """In percent; None of nothing."""
        return 100 * self.numerator / self.denominator if self.denominator else None

    @property
    def percent(self) -> str:
        """The share as text, `"-"` of nothing."""
        return "-" if self.share is None else f"{self.share:.1f} %"

    def as_dict(self) -> dict[str, Any]:
        """For JSON files; the share in percent."""
        note = {"note": self.note} if self.note else {}
        return {
            "name": self.name,
            "numerator": self.numerator,
            "denominator": self.denominator,
            "of": self.of,
            "percent": self.share,
            **note,
        }


def rate(name: str, flags: Sequence[bool | None], of: str, note: str = "") -> Rate:
    """Return the rate of true flags among those that are not None (not asked, not reached)."""
    reached = [flag for flag in flags if flag is not None]
    return Rate(name, sum(map(bool, reached)), len(reached), of, note)
