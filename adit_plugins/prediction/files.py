"""The files of a search: a table, the structures, CIFs of exact symmetry, a page."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.outputs import replacing
from adit_plugins.outputs import without_nan
from adit_plugins.prediction.diagram import DIAGRAM, PHASES, write_phases
from adit_plugins.prediction.store import (
    KNOWN,
    REFINED,
    RELAXED,
    SAMPLES,
    SEARCH,
    VARIED,
    read_search,
)
from adit_plugins.report import REPORT, write_report
from adit_plugins.structures.formats import INDEX_COLUMNS, cif_text, is_ours
from adit_plugins.structures.samples import to_sample
from adit_plugins.structures.selection import INDEX
from adit_plugins.structures.symmetrizing import symmetrized
from adit_plugins.structures.writers import check_output, write_samples

if TYPE_CHECKING:
    from adit_plugins.prediction.ranking import Prediction
    from adit_plugins.prediction.results import Predictions

TABLE, RECORDS, STRUCTURES, CIFS = (
    "predictions.csv", "predictions.json", "predictions.extxyz", "cif",
)  # fmt: skip
FILES = (
    TABLE, RECORDS, STRUCTURES, REPORT, SEARCH, SAMPLES, RELAXED, f"{VARIED}{SAMPLES}",
    f"{VARIED}{RELAXED}", KNOWN, REFINED, PHASES, DIAGRAM,
)  # fmt: skip
LISTS = ("sample_ids", "variation_ids")  # in the records, not in the table
MAX_CIFS = 100
FACTS = (  # of a prediction, in its CIF
    "rank", "energy_above_hull", "energy_above_lowest", "potential", "converged", "num_found",
)  # fmt: skip


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse, before any work, a folder that cannot be written or whose content would be lost.

    Raises:
        ValueError: see above; the message says what to do.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Choose another --out.")
    if resume and overwrite:
        raise ValueError("--resume goes on and --overwrite begins anew: choose one.")
    content = any(folder.iterdir()) if folder.is_dir() else False
    if content and read_search(folder) is None:
        raise ValueError(f"{folder} is not empty and holds no search. Choose another --out.")
    if content and not (resume or overwrite):
        raise ValueError(
            f"{folder} holds a search. Go on with --resume, replace it with --overwrite, or choose "
            "another --out."
        )
    if resume and not content:
        raise ValueError(f"{folder} holds no search to resume. Leave out --resume.")
    # As a file name in the folder, or in its parent where the folder has yet to be made.
    check_output((folder if folder.is_dir() else folder.parent) / STRUCTURES)
    if folder.is_dir():
        check_output(folder / CIFS)  # a folder of CIFs that is not ours stays


def remove_search(folder: Path) -> None:
    """Remove an earlier search; a user's own files stay."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    if is_ours(folder / CIFS):
        shutil.rmtree(folder / CIFS)


def write_files(predictions: Predictions, folder: Path) -> list[Path]:
    """Write all of it; each file is replaced by a complete one only.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        {"rank": rank, "file": f"{CIFS}/{cif_name(rank, each)}", **each.as_record()}
        for rank, each in enumerate(predictions, start=1)
    ]
    for record in records[MAX_CIFS:]:
        record["file"] = ""
    _write_json({**vars(predictions.about), "predictions": records}, folder / RECORDS)
    _write_csv(records, folder / TABLE)
    if predictions:
        write_samples((each.structure for each in predictions), folder / STRUCTURES)
    _write_cifs(predictions[:MAX_CIFS], folder / CIFS)
    phases = write_phases(predictions.about.known_phases, predictions, folder)
    page = write_report([predictions.as_results()], folder / REPORT)
    return [folder / name for name in (TABLE, RECORDS, STRUCTURES, CIFS)] + [*phases, page]


def cif_name(rank: int, each: Prediction) -> str:
    """`001_TiO2_136.cif`: rank, formula, space group."""
    parts = [f"{rank:03d}", each.formula]
    parts += [] if each.space_group is None else [str(each.space_group)]
    return f"{'_'.join(parts)}.cif"


def _write_json(content: dict[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(without_nan(content), indent=1, allow_nan=False), encoding="utf-8"
        )


def _write_csv(records: list[dict[str, Any]], path: Path) -> None:
    names = [name for name in (records[0] if records else ("rank",)) if name not in LISTS]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        for record in records:
            writer.writerow({**record, "known_as": "; ".join(record["known_as"])})


def _write_cifs(made: list[Prediction], path: Path) -> None:
    with replacing(path) as folder:
        folder.mkdir()
        with (folder / INDEX).open("w", encoding="utf-8", newline="") as file:
            index = csv.writer(file)
            index.writerow(INDEX_COLUMNS)
            for name, each, text in _cifs(made):
                (folder / name).write_text(text, encoding="utf-8")
                first = each.names[0]
                index.writerow((name, first, each.formula, len(each.structure)))


def _cifs(made: list[Prediction]) -> Iterator[tuple[str, Prediction, str]]:
    for rank, each in enumerate(made, start=1):
        exact = each.structure
        if each.space_group is not None:
            exact = symmetrized(exact, each.symmetry_tolerance)
        record = {"rank": rank, **each.as_record()}
        facts = {name: record[name] for name in FACTS}
        yield cif_name(rank, each), each, cif_text(to_sample(exact), facts)
