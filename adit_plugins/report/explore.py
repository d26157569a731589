"""The structures in chemiscope: a map of any two of their properties, beside the structure.

Chemiscope: G. Fraux, R. Cersonsky, M. Ceriotti, J. Open Source Softw. 5, 2117 (2020),
doi:10.21105/joss.02117.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.metrics.latent_map import points
from adit_plugins.registry import MissingExtraError
from adit_plugins.report.results import Results
from adit_plugins.report.rows import Row

EXPLORER = "explore.html"
MAX_STRUCTURES = 5000  # of each set and kind, the best first; a browser holds all of them
SCRIPT = Path("sphinx") / "static" / "chemiscope.min.js"  # in the package

# The page's own script, after chemiscope's. JSON has no NaN; null stands for it.
_LOAD = """
const data = JSON.parse(document.getElementById("data").textContent);
for (const each of Object.values(data.properties)) {
  each.values = each.values.map((value) => (value === null ? NaN : value));
}
const warnings = new Chemiscope.Warnings();
warnings.addHandler((message) => console.info(message));
addEventListener("load", () => Chemiscope.DefaultVisualizer.load(
  {meta: "meta", map: "map", info: "info", structure: "structure"}, data, warnings));
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>adit report in chemiscope</title><style>
body { margin: 0; font-family: system-ui, sans-serif; }
main { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); }
main > div { display: flex; flex-direction: column; height: 100vh; overflow: hidden; }
#map, #structure { flex: 1 1 0; position: relative; min-height: 0; overflow: hidden; }
@media (max-width: 800px) { main { grid-template-columns: minmax(0, 1fr); } }
</style></head><body>
<main><div><div id="meta"></div><div id="map"></div></div>
<div><div id="structure"></div><div id="info"></div></div></main>
<script type="application/json" id="data"><!--data--></script>
<script><!--library--></script>
<script><!--load--></script>
</body></html>
"""


def check_chemiscope() -> Path:
    """Return chemiscope's script in its package.

    Raises:
        MissingExtraError: it is not installed, or a version without the script.
    """
    found = find_spec("chemiscope")
    places = [] if found is None else list(found.submodule_search_locations or [])
    for place in places:
        if (Path(place) / SCRIPT).is_file():
            return Path(place) / SCRIPT
    raise MissingExtraError(
        "chemiscope (1.0 or newer) is not installed. pip install 'adit-plugins[chemiscope]'"
    )


def write_explorer(results: Sequence[Results], path: Path) -> int:
    """Write a page with chemiscope in it, which asks no server; return its number of structures.

    Args:
        results: the sets that it shows.
        path: of the HTML file; it is there as a whole or not at all.

    Raises:
        MissingExtraError: chemiscope is not installed.
        ValueError: there is no structure to show.
    """
    script = check_chemiscope().read_text(encoding="utf-8")
    rows = list(_rows(results))
    if not rows:
        raise ValueError("There is no structure to explore.")
    data = json.dumps(_dataset([row for _, row in rows], [name for name, _ in rows]))
    filled = _PAGE.replace("<!--load-->", _LOAD).replace(
        "<!--data-->", data.replace("<", "\\u003c")
    )
    with replacing(path) as temporary:
        temporary.write_text(filled.replace("<!--library-->", script), encoding="utf-8")
    return len(rows)


def _rows(results: Sequence[Results]) -> Iterator[tuple[str, Row]]:
    for each in results:
        for kind in (kind for kind, number in each.totals.items() if number):
            for row in islice(each.rows(kind), MAX_STRUCTURES):
                if row.structures:
                    yield each.name, row


def _dataset(rows: Sequence[Row], sets: Sequence[str]) -> dict[str, Any]:
    import chemiscope

    structures = [row.structures[-1].to_ase() for row in rows]
    for atoms in structures:
        atoms.info = {}
        atoms.calc = None
    names = [_harmless(each) for each in sets]
    properties = _properties(rows) | {"set": {"target": "structure", "values": names}}
    color = "energy_above_hull" if "energy_above_hull" in properties else "num_atoms"
    settings = chemiscope.quick_settings(
        x="latent_1", y="latent_2", map_color=color, periodic=_any_periodic(structures)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are not known
        dataset: dict[str, Any] = chemiscope.create_input(
            structures=structures,
            metadata={"name": " and ".join(dict.fromkeys(names))},
            properties=properties,
            settings=settings,
        )
    for each in dataset["properties"].values():
        each["values"] = [None if value != value else value for value in each["values"]]
    return dataset


def _properties(rows: Sequence[Row]) -> dict[str, Mapping[str, Any]]:
    """Columns that have a number for any row, or a text for each."""
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.values):
        values = [row.values.get(name) for row in rows]
        known = [value for value in values if value is not None]
        if known and all(isinstance(value, int | float) for value in known):
            columns[name] = [float("nan") if value is None else float(value) for value in values]
        elif len(known) == len(rows) and all(isinstance(value, str) for value in known):
            columns[name] = [_harmless(str(value)) for value in values]
    places = points([row.structures[0] for row in rows])
    for axis in (0, 1):
        found = [float("nan") if place is None else place[axis] for place in places]
        columns[f"latent_{axis + 1}"] = found
    return {name: {"target": "structure", "values": found} for name, found in columns.items()}


def _harmless(text: str) -> str:
    """No markup, whatever chemiscope makes of a text."""
    return text.translate(str.maketrans("<>&", "[]+"))


def _any_periodic(structures: Sequence[Atoms]) -> bool:
    return any(bool(atoms.pbc.any()) for atoms in structures)
