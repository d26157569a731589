"""Matbench Discovery's files: predictions, relaxed structures, and the scores beside the model.

It ranks energy models by how well they find stable crystals of the WBM set (Riebesell et al. 2025,
doi 10.1038/s42256-025-01055-1); a generator cannot enter. What can is the relax-and-hull pipeline.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.hull.table import (
    UnknownElementError,
    element_references,
    formation_energy_per_atom,
)
from adit_plugins.structures.untrusted import structure_from_dict
from adit_plugins.submissions.model_file import ModelFile
from adit_plugins.submissions.shards import MATERIAL_ID, RelaxationSettings

if TYPE_CHECKING:
    import pandas as pd

ENERGY = "e_form_per_atom"
# Columns of WBM's summary file: DFT's formation energy and distance from the hull, eV/atom.
E_FORM_DFT = "e_form_per_atom_mp2020_corrected"
EACH_DFT = "e_above_hull_mp2020_corrected_ppd_mp"
UNIQUE = "unique_prototype"
MOST_STABLE = 10_000


class SubmissionError(ValueError):
    """What is given cannot become a submission."""


@dataclass(frozen=True)
class Artifacts:
    """The files of a submission.

    Attributes:
        discovery: material_id and e_form_per_atom (eV/atom), empty where there is none.
        geo_opt: structure, energy, converged and n_steps of every relaxed structure.
        predictions: e_form_per_atom by material id; None where there is none.
    """

    discovery: Path
    geo_opt: Path
    predictions: dict[str, float | None]


def read_initial(path: Path) -> tuple[dict[str, Atoms], dict[str, str]]:
    """Return initial structures by material id: of the file, table or name of a file with one.

    Those without an id go by their place in the file.

    Returns:
        The structures, and by the entry's name why others cannot be read.

    Raises:
        InputError: the file, or every structure of it, cannot be read.
        SubmissionError: an id comes twice, or there is nothing.
    """
    from adit_plugins.structures.entries import InputError
    from adit_plugins.structures.reading import iter_entries

    structures: dict[str, Atoms] = {}
    unreadable: dict[str, str] = {}
    for entry in iter_entries(path):
        if entry.atoms is None:
            unreadable[entry.name] = entry.reason
            continue
        given = entry.atoms.info.get(MATERIAL_ID)  # somebody's key of this name may hold anything
        named = isinstance(given, str | Integral) and not isinstance(given, bool)
        name = str(given) if named and str(given) else entry.name
        if name in structures:
            raise SubmissionError(f"{path} has two structures of the material id '{name}'.")
        structures[name] = entry.atoms
    if not structures and unreadable:
        name, reason = next(iter(unreadable.items()))
        raise InputError(f"Cannot read {path}: {name}: {reason}")
    if not structures:
        raise SubmissionError(f"{path} holds no structures.")
    return structures, unreadable


def read_summary(path: Path) -> pd.DataFrame:
    """Return WBM's summary (CSV) by material id.

    Raises:
        SubmissionError: it cannot be read, or lacks a column.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise SubmissionError(f"Cannot read {path}: {error}") from error
    if lacking := [name for name in (MATERIAL_ID, E_FORM_DFT, EACH_DFT) if name not in table]:
        raise SubmissionError(f"{path} lacks the columns {', '.join(lacking)} of WBM's summary.")
    return table.set_index(MATERIAL_ID)


def campaign_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the relaxed crystals of a campaign as records, by the id of the sample.

    Args:
        folder: of `adit discover`, with `results.db`, or with the `relaxed.extxyz` of `adit relax`.

    Raises:
        SubmissionError: there is neither, or it holds no relaxed crystal.
    """
    from adit_plugins.relax.files import record_in, result_of
    from adit_plugins.structures.provenance import provenance_in
    from adit_plugins.submissions.shards import record_of

    records: dict[str, dict[str, Any]] = {}
    for atoms in _relaxed(folder):
        if atoms.pbc.all() and atoms.calc is not None:
            name = str(provenance_in(atoms.info).get("id") or f"structure-{len(records)}")
            known = record_in(atoms).get("convention", "")
            records[name] = record_of(name, result_of(atoms, known))
    if not records:
        raise SubmissionError(f"{folder} holds no relaxed crystals.")
    return records


def _relaxed(folder: Path) -> Iterable[Atoms]:
    from adit_plugins.relax.files import RELAX, record_in
    from adit_plugins.structures.reading import read_structures

    store, file = folder / "results.db", folder / "relaxed.extxyz"
    if store.is_file():
        import ase.db

        with ase.db.connect(store, use_lock_file=False) as database:
            for row in database.select("relaxed=1"):
                atoms = row.toatoms()
                atoms.info = {"adit": row.data.get("adit", {}), RELAX: row.data["relaxation"]}
                yield atoms
    elif file.is_file():
        yield from (atoms for atoms in read_structures(file) if record_in(atoms))
    else:
        raise SubmissionError(f"{folder} holds no campaign: no {store.name}, no {file.name}.")


def write_artifacts(
    records: Mapping[str, Mapping[str, Any]],
    folder: Path,
    day: str,
    references: Mapping[str, float] | None = None,
) -> Artifacts:
    """Write `DAY-discovery.csv.gz` and `DAY-geo-opt.jsonl.gz`.

    Every material has a row of predictions, also where the relaxation failed: the benchmark counts
    those as unstable. No prediction is left out for being bad.

    Args:
        records: by material id, of `shards.read_jobs` or `campaign_records`.
        folder: `models/FAMILY/KEY`.
        day: yyyy-mm-dd.
        references: energy per atom (eV) of the elements; None for the shipped ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    predictions = {name: _prediction(record, references) for name, record in records.items()}
    rows = [f"{MATERIAL_ID},{ENERGY}"]
    rows += [f"{_quoted(k)},{'' if e is None else f'{e:.6f}'}" for k, e in predictions.items()]
    discovery, geo_opt = (
        folder / f"{day}-{name}" for name in ("discovery.csv.gz", "geo-opt.jsonl.gz")
    )
    _write_gzip(discovery, rows)
    columns = (MATERIAL_ID, "structure", "energy", "converged", "n_steps")
    _write_gzip(
        geo_opt,
        (
            json.dumps({name: record[name] for name in columns})
            for record in records.values()
            if record["structure"] is not None
        ),
    )
    return Artifacts(discovery, geo_opt, predictions)


def _prediction(record: Mapping[str, Any], references: Mapping[str, float] | None) -> float | None:
    """Return the formation energy of a record, eV/atom; None without energy or reference."""
    if record["corrected_energy"] is None:
        return None
    composition = structure_from_dict(record["structure"]).composition
    per_atom = record["corrected_energy"] / composition.num_atoms
    try:
        if references is None:
            return formation_energy_per_atom(composition, per_atom)
        fractions = composition.fractional_composition.get_el_amt_dict()
        return float(per_atom - sum(x * references[symbol] for symbol, x in fractions.items()))
    except (UnknownElementError, KeyError):
        return None


def subsets(summary: pd.DataFrame, predictions: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the tables that are scored, with `true` and `pred` above hull (eV/atom).

    The predicted distance is DFT's, moved by the error of the formation energy.

    Raises:
        SubmissionError: the summary knows none of the materials.
    """
    import pandas as pd

    table = summary[summary.index.isin(predictions.keys())]
    if table.empty:
        raise SubmissionError("The summary holds none of the materials that were relaxed.")
    energies = pd.Series(predictions, dtype=float).reindex(table.index)
    scored = pd.DataFrame(
        {
            "true": table[EACH_DFT],
            "pred": energies - table[E_FORM_DFT] + table[EACH_DFT],
            "unique": table[UNIQUE].astype(bool) if UNIQUE in table else True,
        }
    )
    unique = scored[scored["unique"]]
    return {
        "full_test_set": scored,
        "most_stable_10k": unique.nsmallest(MOST_STABLE, "pred"),
        "unique_prototypes": unique,
    }


def described(
    model: ModelFile,
    artifacts: Artifacts,
    family: str,
    settings: RelaxationSettings,
    scores: Mapping[str, Any],
    urls: Mapping[str, str | None],
) -> ModelFile:
    """Return the model's description with the run's settings, files and scores in it."""
    evaluation = {
        "max_force": settings.fmax,
        "max_steps": settings.max_steps,
        "ase_optimizer": "FIRE",
        "cell_filter": "FrechetCellFilter",
    }
    files = {
        task: {"pred_file": _file_entry(path, family, model.model_key, urls.get(task))}
        for task, path in (("geo_opt", artifacts.geo_opt), ("discovery", artifacts.discovery))
    }
    files["discovery"] |= scores
    hyperparams = {**model.hyperparams, "evaluation": evaluation}
    return replace(model, hyperparams=hyperparams, metrics={**model.metrics, **files})


def _file_entry(path: Path, family: str, key: str, url: str | None) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "name": f"models/{family}/{key}/{path.name}",
        "url": url or f"https://figshare.com/files/upload-{path.name}-and-pass-its-url",
        "size": len(content),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
    }


def summary_of(
    artifacts: Artifacts, records: Mapping[str, Mapping[str, Any]], settings: RelaxationSettings
) -> dict[str, Any]:
    """Return what happened: counts with their denominators, and where the numbers come from."""
    failed = [record for record in records.values() if record["structure"] is None]
    asked = [record for record in records.values() if record["potential"]]  # it could be read
    fates = [record["constraints"] for record in records.values()]
    return {
        "materials": len(records),
        "unreadable": len(records) - len(asked),
        "relaxed": len(records) - len(failed),
        "converged": sum(bool(record["converged"]) for record in records.values()),
        "without prediction": sum(each is None for each in artifacts.predictions.values()),
        "potentials": sorted({record["potential"] for record in asked}),
        "conventions": sorted({record["convention"] for record in asked}),
        "constraints dropped": fates.count("dropped"),
        "constraints kept": fates.count("kept"),
        "settings": asdict(settings),
        "elements with a reference": len(element_references()),
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n') else name


def _write_gzip(path: Path, lines: Iterable[str]) -> None:
    """The same lines give the same bytes: the time in gzip's header is zero."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as text,
    ):
        text.writelines(f"{line}\n" for line in lines)
