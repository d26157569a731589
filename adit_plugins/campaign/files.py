"""The files that a campaign leaves beside its store: which, and what stands in the summaries."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adit_model.outputs import replacing
from adit_plugins._version import __version__
from adit_plugins.campaign.endings import STRUCTURES
from adit_plugins.campaign.funnel import Tally, base_of
from adit_plugins.campaign.row_files import CANDIDATES, CIFS, RANKED, write_rows
from adit_plugins.campaign.settings import ALL, INTERRUPTED, UNFINISHED
from adit_plugins.campaign.store import Store
from adit_plugins.outputs import without_nan
from adit_plugins.structures.formats import is_ours

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
FORMAT = "adit discover"  # marks a folder of results as ours
FILES = (
    "crystals.extxyz", "relaxed.extxyz", "molecules.extxyz", "molecules.sdf", CANDIDATES,
    STRUCTURES, *RANKED, "funnel.csv", "report.html", SUMMARY,
)  # fmt: skip
VERSIONS = ("torch", "ase", "pymatgen", "rdkit", "smact", "posebusters", "chgnet")


def write_files(store: Store, ended: str | None = None, seconds: float = 0.0) -> list[Path]:
    """Write everything into the campaign's folder; each file is replaced by a complete one only.

    Args:
        store: of a campaign, finished or not.
        ended: what has ended the run (`Campaign.ended`); None to say whether anything is left.
        seconds: that the last run took.

    Returns:
        The files and folders that were written.
    """
    if ended is None:
        ended = ALL if store.num_judged() == store.total else UNFINISHED
    out, header = store.folder, _header(store, ended, seconds)
    tally = Tally(base=base_of(store.metadata["recipe"]))
    written = [*write_rows(store, header, tally), _write_funnel(tally, out / "funnel.csv")]
    counts = {
        "crystals": [rate.as_dict() for rate in tally.crystal_funnel()],
        "molecules": [rate.as_dict() for rate in tally.molecule_funnel()],
    }
    content = header | {
        "total": store.total,
        "structures": tally.num_crystals + tally.num_molecules,
        "judged": tally.judged,
        "unreadable": tally.unreadable,
        "candidates": tally.candidates,
        "counts": counts,
        "relaxation_outcomes": dict(tally.outcomes.most_common()),
    }
    content["files"] = sorted(path.name for path in [*written, out / SUMMARY, store.path])
    written.append(_write_json(content, out / SUMMARY))
    _remove_stale(out, written)
    log.info("written to %s: %s", out, ", ".join(path.name for path in written))
    return written


def is_results(folder: Path) -> bool:
    """Whether a folder holds the results of a campaign."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def remove_results(folder: Path) -> None:
    """Remove the results of an earlier campaign; a user's own files stay."""
    _remove_stale(folder, [])


def _remove_stale(out: Path, written: Iterable[Path]) -> None:
    """Remove files of ours that were not written anew."""
    written = list(written)
    for name in set(FILES) - {path.name for path in written}:
        (out / name).unlink(missing_ok=True)
    if out / CIFS not in written and is_ours(out / CIFS):
        shutil.rmtree(out / CIFS)


def _write_funnel(tally: Tally, path: Path) -> Path:
    kinds = {"crystal": tally.crystal_funnel(), "molecule": tally.molecule_funnel()}
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("kind", "stage", "number", "of_number", "of", "percent"))
        for kind, rates in kinds.items():
            for rate in rates if rates[0].numerator else ():
                share = None if rate.share is None else round(rate.share, 2)
                writer.writerow((kind, rate.name, rate.numerator, rate.denominator, rate.of, share))
    return path


def _header(store: Store, ended: str, seconds: float) -> dict[str, Any]:
    versions = {"adit-plugins": __version__}
    for name in VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "format": FORMAT,
        "ended": ended,
        "interrupted": ended == INTERRUPTED,
        "recipe": store.metadata["recipe"],
        "settings": store.metadata["settings"],
        "shard": store.metadata["shard"],
        "seconds": round(seconds, 2),
        "versions": versions,
    }


def _write_json(content: dict[str, Any], path: Path) -> Path:
    text = json.dumps(without_nan(content), indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
