"""The two large public references: Alexandria's hull, and the entries that MatterGen compares with.

Both are downloaded once, into the folder of downloads, or read from a file of the user's. Only
compositions, energies and, for corrections, geometries are taken from them.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from adit_model.outputs import replacing
from adit_plugins.datasets.download import cache, digest, download
from adit_plugins.datasets.errors import DatasetError
from adit_plugins.hull.entries import HullSourceError, Total, split, total_of_json
from adit_plugins.hull.table import Hull


class Source(NamedTuple):
    """A file to download."""

    name: str  # of the reference
    url: str
    known_hash: str | None  # where it is published; else that of the first use is recorded
    label: str


ALEXANDRIA = Source(
    "alexandria",
    "https://alexandria.icams.rub.de/data/pbe/2025.07.02/convex_hull.json.bz2",
    None,
    "Alexandria PBE, hull of 2025-07-02",
)
# The checksum is that of the pointer which the repository holds at this commit.
TRI2024 = Source(
    "tri2024",
    "https://github.com/microsoft/mattergen/raw/67afb22ea0dd0073aedfc85b30b94bea0ee21863/"
    "data-release/alex-mp/reference_TRI2024correction.gz",
    "sha256:ab1b4426901ff7b0f8af6ee9c3cc0dd2fbe4b65c758ef2a95683071492d1c51d",
    "MatterGen's reference (Alexandria and Materials Project), MP2020 corrections",
)
REDUCED = ".hull.json.gz"  # what is kept of a file beside it
# Of formulas that the shipped table knows, too. A deeper hull is lower by some meV/atom; without
# corrections, oxides and halides are higher by hundreds.
MIN_SHARED, MAX_HIGHER = 20, 0.05  # number; eV/atom


def from_alexandria(path: str | None = None) -> Hull:
    """Alexandria's hull (Schmidt et al., CC BY 4.0), downloaded (83 MB) or from a copy of the file.

    A JSON of pymatgen's entries under `entries`, of which `data.energy_corrected` (eV) has the
    Materials Project's corrections. It is read entry by entry; the formulas and energies are kept
    beside it, so that the next time takes seconds.

    Raises:
        HullSourceError: no network and no file, another content than at its first use, a damaged
            file, or energies of another scale.
    """
    file = _file(ALEXANDRIA, path)
    label = ALEXANDRIA.label if path is None else f"Alexandria {file.name}"
    content = _kept(file)
    if content is None:
        content = _reduced(file, _alexandria_totals(file))
        kept = file.with_name(file.name + REDUCED)
        with suppress(OSError), replacing(kept) as temporary:  # a file may lie where none is made
            temporary.write_bytes(gzip.compress(json.dumps(content).encode()))
    energies = content["energies"]
    return Hull(energies, content["references"], f"{label}, {len(energies)} formulas")


def from_tri2024(path: str | None = None) -> Hull:
    """MatterGen's reference of 845,997 entries, downloaded (907 MB) or from a copy of the file.

    A gzipped LMDB; unpacked once, it is read by chemical system. Its energies with the TRI2024
    corrections are of a scale of their own, on which no potential here is, so the raw ones get the
    corrections of 2020 as the candidates do. `reference_MP2020correction.gz` is read as well.

    Raises:
        HullSourceError: no network and no file, another content, or a damaged file.
        MissingExtraError: the package that reads such files is missing.
    """
    from adit_plugins.hull.mattergen import EntriesHull

    file = _file(TRI2024, path)
    label = TRI2024.label if path is None else f"MatterGen's {file.name}, MP2020 corrections"
    return EntriesHull(_unpacked(file), label)


def _file(source: Source, path: str | None) -> Path:
    if path is not None:
        if not Path(path).is_file():
            raise HullSourceError(f"Cannot read '{path}': no such file.")
        return Path(path)
    advice = f"get the file on another machine, and --hull {source.name}:FILE"
    try:
        file = cache() / "hulls" / source.url.rpartition("/")[2]
        download(source.url, file, source.known_hash, advice)
    except DatasetError as error:
        raise HullSourceError(str(error)) from error
    return file


def _alexandria_totals(file: Path) -> Iterable[Total]:
    from adit_plugins.datasets.alexandria import read_values

    number = 0
    try:
        for number, value in enumerate(read_values(file)):  # noqa: B007
            yield _with_corrected_energy(value)
    except DatasetError as error:
        raise HullSourceError(str(error)) from error
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        problem = f"entry {number}: {type(error).__name__}: {error!s:.200}"
        raise HullSourceError(f"'{file}' is no file of Alexandria ({problem}).") from error


def _with_corrected_energy(value: Any) -> Total:
    total = total_of_json(value)
    corrected = (value.get("data") or {}).get("energy_corrected")
    return total if corrected is None else total._replace(energy=float(corrected))


def _reduced(file: Path, totals: Iterable[Total]) -> dict[str, Any]:
    """References of the elements and formation energies by formula, eV/atom."""
    lowest: dict[str, Total] = {}
    for total in totals:
        name = _reduced_formula(total.amounts)
        size = sum(total.amounts.values())
        if name not in lowest or total.energy / size < lowest[name].energy / sum(
            lowest[name].amounts.values()
        ):
            lowest[name] = total
    references, phases = split(lowest.values())
    if not references:
        raise HullSourceError(f"'{file}' holds no elemental entries, so no formation energies.")
    energies = {_reduced_formula(amounts): round(energy, 5) for amounts, energy in phases}
    _check_scale(energies, file)
    return {"sha256": digest(file), "references": references, "energies": energies}


def _reduced_formula(amounts: dict[str, float]) -> str:
    from pymatgen.core import Composition

    reduced = Composition(amounts).reduced_composition.get_el_amt_dict()
    return "".join(f"{s}{n:g}" if n != 1 else s for s, n in sorted(reduced.items()))


def _check_scale(energies: dict[str, float], file: Path) -> None:
    """Compare compounds of oxygen and halogens with the shipped table.

    Raises:
        HullSourceError: they lie far above it, as they do without corrections.
    """
    shipped = Hull.load()
    shared = [f for f in energies if {"O", "F", "Cl", "Br"} & _elements(f) and shipped.knows(f)]
    if len(shared) < MIN_SHARED:
        return
    higher = [
        energies[f] - shipped.energy_above_hull(f, 0.0).hull_energy_per_atom for f in shared[:2000]
    ]
    if median(higher) > MAX_HIGHER:
        raise HullSourceError(
            f"'{file}': {len(higher)} compounds that the shipped table knows lie above it by "
            f"{median(higher):.3f} eV/atom in the median, so their energies lack the Materials "
            "Project's 2020 corrections."
        )


def _elements(formula: str) -> set[str]:
    from pymatgen.core import Composition

    return {element.symbol for element in Composition(formula)}


def _kept(file: Path) -> dict[str, Any] | None:
    """What was kept of this very file; None where there is nothing, or it is damaged."""
    try:
        content = json.loads(gzip.decompress(file.with_name(file.name + REDUCED).read_bytes()))
        same = content["sha256"] == digest(file)
        return {**content} if same else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        return None


def _unpacked(file: Path) -> Path:
    """The file without its compression, beside it; unpacked once."""
    if file.suffix != ".gz":
        return file
    target = file.with_suffix(".lmdb")
    if not target.exists() or target.stat().st_mtime < file.stat().st_mtime:
        try:
            with (
                replacing(target) as temporary,
                gzip.open(file) as packed,
                temporary.open("wb") as plain,
            ):
                shutil.copyfileobj(packed, plain, 2**22)
        except (OSError, EOFError, zlib.error) as error:
            raise HullSourceError(f"Cannot unpack '{file}': {error}") from error
    return target
