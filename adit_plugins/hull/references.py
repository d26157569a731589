"""What each potential's elements are off by: corrections that make its formation energies honest.

The tabulated elements are the Materials Project's. A potential that puts an element, or all of its
compounds, too high by some meV an atom shifts every distance from the hull by that. A correction an
element, fitted on thousands of crystals (`adit_plugins.hull.fitting`), takes the mean of it away;
what depends on the bonding stays. Those of CHGNet and mace-adit are shipped, those of a user's
potentials are in the user's own folder and win over the shipped ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from adit_model.outputs import replacing
from adit_plugins.outputs import own_folder

FILE = "element_corrections.json"
LARGEST = 2.0  # eV/atom; beyond, a file is damaged or of another scale


class ReferencesError(ValueError):
    """A file of corrections cannot be used."""


@dataclass(frozen=True)
class References:
    """The corrections of one potential.

    Attributes:
        potential: its name with its version, as results have it.
        corrections: eV/atom by element, to be taken from the energy; 0 for elements not in it.
        convention: of the energies that they were fitted on.
        num_rows: crystals of the fit.
        num_formulas: their different formulas.
        held_out: error on formulas that a fit did not see, before and after, meV/atom.
        about: of the data, and the settings of the fit.
        own: from the user's folder, not shipped.
    """

    potential: str
    corrections: Mapping[str, float]
    convention: str
    num_rows: int
    num_formulas: int
    held_out: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    own: bool = False

    @property
    def label(self) -> str:
        """What results say of it; a probability is calibrated for one of these alone."""
        return f"{self.potential}, {self.num_rows} crystals{', own' if self.own else ''}"

    def shift(self, fractions: Mapping[str, float]) -> float:
        """Return what a composition (atomic fractions) has too much, eV/atom."""
        return sum(x * self.corrections.get(symbol, 0.0) for symbol, x in fractions.items())


def references_of(potential: str) -> References | None:
    """Return the corrections of a potential; None where it has none.

    Raises:
        ReferencesError: the user's file is damaged.
    """
    own = own_file()
    changed = own.stat().st_mtime_ns if own is not None and own.is_file() else 0
    found = _own(own, changed).get(potential) if own is not None and changed else None
    return found or _shipped().get(potential)


def own_file() -> Path | None:
    """Return where a user's corrections are; None where there is no home for them."""
    try:
        return own_folder() / FILE
    except OSError:
        return None


@lru_cache(maxsize=1)
def _shipped() -> dict[str, References]:
    return read(Path(str(files("adit_plugins") / "data" / FILE)))


@lru_cache(maxsize=1)
def _own(path: Path, changed: int) -> dict[str, References]:
    return read(path, own=True)


def read(path: Path, own: bool = False) -> dict[str, References]:
    """Read corrections by potential.

    Raises:
        ReferencesError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["potentials"]
        found = {name: References(name, **each, own=own) for name, each in content.items()}
        for each in found.values():
            numbers = [float(value) for value in each.corrections.values()]
            if not all(math.isfinite(x) and abs(x) <= LARGEST for x in numbers):
                raise ValueError(f"a correction of {each.potential} is beyond {LARGEST} eV/atom")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReferencesError(
            f"'{path}' holds no corrections of elements ({type(error).__name__}: {error}). Remove "
            "it, or make it again: adit relaxer calibrate NAME --data FILE"
        ) from error
    return found


def write(made: References, path: Path) -> None:
    """Put the corrections of a potential into a file, in the place of earlier ones of its name.

    Raises:
        ReferencesError: the file is there, and damaged.
        OSError: it cannot be written.
    """
    others = read(path) if path.exists() else {}
    content = {}
    for name, each in sorted({**others, made.potential: made}.items()):
        values = asdict(each)
        content[name] = {k: v for k, v in values.items() if k not in ("potential", "own")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"potentials": content}, indent=1) + "\n", encoding="utf-8")
