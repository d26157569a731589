"""The files that a campaign leaves beside its store, each written row by row."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.io.extxyz import write_extxyz

from adit_plugins import __version__
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.records import current_atoms, generated_sample
from adit_plugins.campaign.store import Store
from adit_plugins.outputs import replacing, without_nan
from adit_plugins.relax_files import RELAX
from adit_plugins.samples import KEY, Sample

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
CIFS = "cif"
MAX_CIFS = 1000  # a folder with more serves nobody; all are in relaxed.extxyz
FORMAT = "adit discover"  # marks a folder of results as ours
FILES = (
    "crystals.extxyz", "relaxed.extxyz", "molecules.extxyz", "molecules.sdf", "candidates.json",
    "ranking.csv", "ranking.json", "funnel.csv", SUMMARY,
)  # fmt: skip
VERSIONS = ("torch", "ase", "pymatgen", "rdkit", "smact", "posebusters", "chgnet")
RANKING = (
    "rank", "formula", "id", "formation_energy_per_atom", "energy_above_hull",
    "metastable_probability", "converged", "num_reference_phases", "num_subsystems_covered",
    "num_subsystems", "potential", "space_group", "dft_formation_energy_per_atom",
    "dft_energy_above_hull", "dft_engine", "file",
)  # fmt: skip


def write_files(store: Store, interrupted: bool = False, seconds: float = 0.0) -> list[Path]:
    """Write everything into the campaign's folder; each file is replaced by a complete one only.

    Args:
        store: of a campaign, finished or not.
        interrupted: whether something is left to do.
        seconds: that the last run took.

    Returns:
        The files and folders that were written.
    """
    out, header = store.folder, _header(store, interrupted, seconds)
    tally = Tally(store.verdicts())
    ranked = store.candidates()
    written = [
        *_write_samples(_samples(store, "crystal"), out / "crystals.extxyz"),
        *_write_relaxed(store, out / "relaxed.extxyz"),
        *_write_samples(_samples(store, "molecule"), out / "molecules.extxyz"),
        *_write_samples(_samples(store, "molecule"), out / "molecules.sdf"),
        _write_candidates(store, header, ranked, out / "candidates.json"),
        _write_funnel(tally, out / "funnel.csv"),
        *_write_ranking(store, ranked, out),
    ]
    counts = {
        "crystals": [rate.as_dict() for rate in tally.crystal_funnel()],
        "molecules": [rate.as_dict() for rate in tally.molecule_funnel()],
    }
    content = header | {"counts": counts}
    if tally.outcomes:
        content["relaxation_outcomes"] = dict(tally.outcomes.most_common())
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
    if out / CIFS not in written and (out / CIFS / "index.csv").is_file():
        shutil.rmtree(out / CIFS)


def _samples(store: Store, kind: str) -> Iterator[Sample]:
    for row in store.rows(kind):
        if (sample := generated_sample(row)) is not None:
            yield sample


def _write_samples(samples: Iterator[Sample], path: Path) -> list[Path]:
    """An SDF leaves out molecules without a bond assignment, and may come out empty."""
    from adit_plugins.writers import write_samples

    return [path] if write_samples(samples, path).written else []


def _write_relaxed(store: Store, path: Path) -> list[Path]:
    """Relaxed structures with energy, forces and stress, and their place on the hull."""
    if not store.count("relaxed", 1.0):
        return []
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in store.rows():
            if row.get("relaxed"):
                write_extxyz(file, [_relaxed_frame(row)])
    return [path]


def _relaxed_frame(row: AtomsRow) -> Atoms:
    atoms = current_atoms(row)
    atoms.info |= {
        "converged": bool(row["converged"]),
        "potential": row["potential"],
        RELAX: without_nan(row.data["relaxation"]),  # for `adit hull`
    }
    for name in ("formation_energy_per_atom", "energy_above_hull"):
        if name in row:
            atoms.info[name] = float(row[name])
    return atoms


def _write_candidates(store: Store, header: dict[str, Any], ranked: list[int], path: Path) -> Path:
    """Every structure with every verdict, as generated; the relaxed ones are in relaxed.extxyz."""
    ranks = {row_id: rank for rank, row_id in enumerate(ranked, start=1)}
    start = json.dumps(without_nan(header), indent=1, allow_nan=False)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(start.removesuffix("}").rstrip())
        for kind in ("crystal", "molecule"):
            file.write(f',\n "{kind}s": [')
            between = "\n"
            for row in store.rows(kind):
                record = without_nan(_record(row, ranks.get(row.id)))
                file.write(between + json.dumps(record, allow_nan=False))
                between = ",\n"
            file.write("\n ]")
        file.write("\n}\n")
    return path


def _record(row: AtomsRow, rank: int | None) -> dict[str, Any]:
    sample = generated_sample(row)
    content: dict[str, Any] = {"id": row.data[KEY]["id"], "formula": None, "num_atoms": 0}
    if sample is not None:
        content["formula"] = _formula(sample)
        content["num_atoms"] = sample.num_atoms
    columns = dict(row.key_value_pairs)
    for name in ("sample_id", "smiles", "kind", "number", "composition"):
        columns.pop(name, None)
    if row["kind"] == "crystal":
        content |= dict.fromkeys(("unique", "novel", "energy_above_hull", "relaxation", "hull"))
        content["rank"] = rank
    content |= columns
    for name in ("relaxation", "hull", "prefilter", "prefilter_look", "dft"):
        if name in row.data:
            content[name] = row.data[name]
    content |= row.data.get("report", {})
    content["provenance"] = row.data[KEY]
    if sample is not None:
        structure: dict[str, Any] = sample.to_pymatgen().as_dict()
        del structure["properties"]  # the provenance, which stands beside it
        content["structure"] = structure
    return content


def _formula(sample: Sample) -> str:
    if sample.kind == "molecule":
        return str(sample.to_ase().get_chemical_formula())
    return str(sample.to_pymatgen().composition.reduced_formula)


def ranking(store: Store, num: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the candidates, lowest energy above hull first, as rows of the ranked table.

    A candidate is valid in structure and composition, unique, novel, and on the hull's scale.
    """
    from pymatgen.core import Composition

    ids = store.candidates()
    for rank, row_id in enumerate(islice(ids, num), start=1):
        row = store.row(row_id)
        values = {name: row.get(name) for name in RANKING}
        values |= {name: row.data["hull"][name] for name in RANKING if name in row.data["hull"]}
        values |= {
            "rank": rank,
            "formula": Composition(row.formula).reduced_formula,
            "id": row.data[KEY]["id"],
            "converged": bool(row["converged"]),
            "space_group": row.data["relaxation"]["space_group_after"],
        }
        values["file"] = f"{rank:04d}-{values['formula']}.cif" if rank <= MAX_CIFS else None
        yield without_nan(values)


def _write_ranking(store: Store, ranked: list[int], out: Path) -> list[Path]:
    """The ranked table as CSV and JSON, and CIFs named by rank and formula."""
    from adit_plugins.writers import check_output

    if not ranked:
        return []
    check_output(out / CIFS)  # a folder that is not ours stays
    folder = out / f".{CIFS}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (
        replacing(out / "ranking.csv") as table,
        replacing(out / "ranking.json") as content,
        table.open("w", encoding="utf-8", newline="") as rows,
        content.open("w", encoding="utf-8") as records,
        (folder / "index.csv").open("w", encoding="utf-8", newline="") as index,
    ):
        writer = csv.DictWriter(rows, RANKING)
        writer.writeheader()
        files = csv.writer(index)
        files.writerow(("file", "id", "formula", "num_atoms"))
        between = "[\n"
        for values, row_id in zip(ranking(store), ranked, strict=True):
            writer.writerow(values)
            records.write(between + json.dumps(values, allow_nan=False))
            between = ",\n"
            if values["file"]:
                atoms = current_atoms(store.row(row_id))
                _write_cif(atoms, folder / values["file"])
                files.writerow((values["file"], values["id"], values["formula"], len(atoms)))
        records.write("\n]\n")
    shutil.rmtree(out / CIFS, ignore_errors=True)
    folder.rename(out / CIFS)
    return [out / "ranking.csv", out / "ranking.json", out / CIFS]


def _write_cif(atoms: Atoms, path: Path) -> None:
    from adit_plugins.formats import cif_text

    path.write_text(cif_text(Sample.from_ase(atoms)), encoding="utf-8")


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


def _header(store: Store, interrupted: bool, seconds: float) -> dict[str, Any]:
    versions = {"adit-plugins": __version__}
    for name in VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "format": FORMAT,
        "interrupted": interrupted,
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
