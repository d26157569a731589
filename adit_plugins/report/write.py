"""Write the page: data, style and scripts in one file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ase.data import chemical_symbols, covalent_radii

from adit_model.outputs import replacing
from adit_plugins._version import __version__
from adit_plugins.outputs import without_nan
from adit_plugins.report.hulls import hull_pictures
from adit_plugins.report.results import Results, campaign_results, check_names
from adit_plugins.report.rows import Table

if TYPE_CHECKING:
    from adit_plugins.campaign.store import Store
    from adit_plugins.structures.samples import Sample

REPORT = "report.html"
KINDS = ("crystal", "molecule")
MAX_CHARS = 14_000_000  # of rows and structures; with the scripts the file stays under 15 MB
PLACE = ("latent_1", "latent_2")
MAX_PLACED = 1000  # of each kind and set on the map of the latent space, the first ones
STYLE = "page.css"
SCRIPTS = (
    "3Dmol-min.js", "files.js", "viewer.js", "charts.js", "map.js", "hulls.js", "panel.js",
    "table.js",
)  # fmt: skip


def write_campaign_report(store: Store) -> Path:
    """Write `report.html` into the folder of a campaign, finished or not."""
    return write_report([campaign_results(store)], store.folder / REPORT)


def write_report(
    results: Sequence[Results], path: Path, max_chars: int = MAX_CHARS, title: str = ""
) -> Path:
    """Write a page of one set, or of several side by side.

    Args:
        results: what it shows.
        path: of the HTML file; it is there as a whole or not at all.
        max_chars: of rows and structures. What has no room is left out, the last of each set, and
            the page says so.
        title: of the page; the names of the sets if empty.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        write_page(results, file, max_chars, title)
    return path


def write_page(
    results: Sequence[Results], file: TextIO, max_chars: int = MAX_CHARS, title: str = ""
) -> None:
    """Write the page into an open text file."""
    check_names(results)
    tables, about = _fill(results, max_chars)
    head = {
        "title": title or " and ".join(each.name for each in results),
        "made": f"{time.strftime('%Y-%m-%d %H:%M')} by adit-plugins {__version__}",
        "sets": about,
        "symbols": chemical_symbols[:100],
        "radii": [round(float(r), 2) for r in covalent_radii[:100]],
        "groups": _space_groups(),
        "hulls": _hulls(tables["crystal"]),
        "training": _training(),
    }
    for piece in _fill_in(_template(), _data(head, tables)):
        file.write(piece)


def _fill(results: Sequence[Results], max_chars: int) -> tuple[dict[str, Table], list[Any]]:
    """Take as many rows of each set and kind as have room, the best first."""
    tables = {kind: Table() for kind in KINDS}
    about = []
    for index, each in enumerate(results):
        kinds = [kind for kind in KINDS if each.totals.get(kind)]
        for kind in kinds:
            table = tables[kind]
            table.room = max_chars // len(results) // len(kinds)
            num = len(table)
            placed: list[tuple[dict[str, Any], Sample]] = []
            for row in each.rows(kind):
                if not table.add(row, index):
                    break
                if len(placed) < MAX_PLACED and row.structures:
                    placed.append((table.rows[-1], row.structures[0]))
            _place(table, placed)
            shown, total = len(table) - num, each.totals[kind]
            if shown < total:
                each.notes.append(
                    f"{shown} of {total} {kind}s are in this page, the ranked ones first; "
                    f"{total - shown} have no room. Counts are of all."
                )
        about.append(without_nan(each.about()))
    return tables, about


def _place(table: Table, generated: Sequence[tuple[dict[str, Any], Sample]]) -> None:
    """Give rows the places of their structures on the map of the latent space."""
    from adit_plugins.metrics.latent_map import points

    found = points([sample for _, sample in generated]) if generated else []
    for (row, _), place in zip(generated, found, strict=True):
        if place is not None:
            row |= dict(zip(PLACE, place, strict=True))
            table.columns |= dict.fromkeys(PLACE)


def _hulls(table: Table) -> list[Any]:
    symbols = []
    for text in table.structures:
        structures = json.loads(text)
        numbers = set(structures[-1]["z"]) if structures else set()
        symbols.append([chemical_symbols[z] for z in sorted(numbers)])
    return hull_pictures(table.rows, symbols)


@lru_cache(maxsize=1)
def _space_groups() -> list[str]:
    """Symbols by international number; the first place is empty."""
    from adit_plugins.structures.symmetry import space_group_symbol

    return ["", *map(space_group_symbol, range(1, 231))]


def _training() -> dict[str, Any]:
    """The distributions of the training set, the densities as counts of equal shares."""
    from adit_plugins.metrics.distributions import training_set
    from adit_plugins.metrics.latent_map import shipped_map

    names = ("num_atoms", "space_group", "elements", "num_crystals")
    drawn = ("extent", "counts", "variance_shares")
    latents = {kind: {name: shipped_map()[kind][name] for name in drawn} for kind in KINDS}
    return {name: training_set()[name] for name in names} | {
        "density": training_set()["density"][5::10],  # a hundred equal parts by their middles
        "latents": latents,
    }


def _data(head: dict[str, Any], tables: dict[str, Table]) -> Iterator[str]:
    """Yield the JSON in which no tag can begin: `<` occurs in strings alone, and is escaped."""
    yield _harmless(json.dumps(head, allow_nan=False)[:-1])
    yield ',"tables":{'
    for i, kind in enumerate(KINDS):
        yield f'{"," if i else ""}"{kind}":'
        yield from map(_harmless, tables[kind].as_json())
    yield "}}"


def _harmless(text: str) -> str:
    return text.replace("<", "\\u003c")


def _fill_in(template: list[str], data: Iterator[str]) -> Iterator[str]:
    """Yield the page, the data in the place of their mark."""
    for piece in template:
        if piece == "data":
            yield from data
        else:
            yield piece


@lru_cache(maxsize=1)
def _template() -> list[str]:
    """The page in pieces, one of which is "data".

    The policy allows the scripts by their hashes and no request to anybody, so a text that came
    in as a script after all would not run.
    """
    assets = files("adit_plugins") / "report" / "assets"

    def read(name: str) -> str:
        return (assets / name).read_text(encoding="utf-8")

    scripts = [read(name) for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    marks = {
        "policy": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        "style": read(STYLE),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    pieces = re.split(r"<!--(\w+)-->", read("page.html"))
    return [marks.get(p, p) if i % 2 else p for i, p in enumerate(pieces)]


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
