"""The files that a campaign leaves beside its store, each written row by row."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TextIO

from ase import Atoms
from rdkit import Chem

from adit_model.outputs import replacing
from adit_plugins._version import __version__
from adit_plugins.campaign import rendering
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.records import current_atoms, generated_sample
from adit_plugins.campaign.store import Store
from adit_plugins.outputs import without_nan
from adit_plugins.relax.files import RELAX
from adit_plugins.structures.facts import reduced_formula
from adit_plugins.structures.formats import INDEX_COLUMNS, is_ours
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Sample
from adit_plugins.structures.selection import INDEX

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

log = logging.getLogger(__name__)

SUMMARY = "summary.json"
CIFS = "cif"
MAX_CIFS = 1000  # a folder with more serves nobody; all are in relaxed.extxyz
FORMAT = "adit discover"  # marks a folder of results as ours
FILES = (
    "crystals.extxyz", "relaxed.extxyz", "molecules.extxyz", "molecules.sdf", "candidates.json",
    "ranking.csv", "ranking.json", "funnel.csv", "report.html", SUMMARY,
)  # fmt: skip
VERSIONS = ("torch", "ase", "pymatgen", "rdkit", "smact", "posebusters", "chgnet")
RANKING = (
    "rank", "formula", "id", "origin", "novelty", "neutral_by", "formation_energy_per_atom",
    "energy_above_hull",
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
    tally, ranked = Tally(), store.candidates()
    written = [
        *_write_rows(store, header, ranked, tally),
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
    if out / CIFS not in written and is_ours(out / CIFS):
        shutil.rmtree(out / CIFS)


def _write_rows(
    store: Store, header: dict[str, Any], ranked: list[int], tally: Tally
) -> list[Path]:
    """Write what needs no order, and count, in one pass over the rows."""
    ranks = {row_id: rank for rank, row_id in enumerate(ranked, start=1)}
    with ExitStack() as stack:
        files = {
            name: _Lines(stack, store.folder / name)
            for name in ("crystals.extxyz", "relaxed.extxyz", "molecules.extxyz", "molecules.sdf")
        }
        candidates = stack.enter_context(
            _Candidates.begun(store.folder / "candidates.json", header)
        )
        for row in store.rows():
            data, sample = row.data, generated_sample(row)  # decoded at each access
            tally.add(row.key_value_pairs)
            if sample is not None:
                files[f"{row['kind']}s.extxyz"].add(rendering.frame(sample.to_ase()))
            if sample is not None and sample.kind == "molecule":
                with suppress(ValueError):  # no bonds fit; an SDF leaves it out
                    files["molecules.sdf"].add(Chem.SDWriter.GetText(sample.to_rdkit()))
            if row.get("relaxed"):
                files["relaxed.extxyz"].add(rendering.frame(_relaxed_frame(row, data)))
            candidates.add(row["kind"], _record(row, data, sample, ranks.get(row.id)))
    written = [each.path for each in files.values() if each.path.exists() and each.begun]
    return [*written, candidates.path]


class _Lines:
    """A file that is made with the first text that it gets, and takes its place at the end."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self.path, self._stack = path, stack
        self._file: TextIO | None = None

    @property
    def begun(self) -> bool:
        """Whether it holds anything."""
        return self._file is not None

    def add(self, text: str) -> None:
        """Append a text."""
        if self._file is None:
            temporary = self._stack.enter_context(replacing(self.path))
            self._file = self._stack.enter_context(
                temporary.open("w", encoding="utf-8", newline="\n")
            )
        self._file.write(text)


class _Candidates:
    """Every structure with every verdict, as generated: crystals first, then molecules."""

    def __init__(self, path: Path, file: TextIO, molecules: TextIO) -> None:
        self.path, self._files = path, {"crystal": file, "molecule": molecules}
        self._between = dict.fromkeys(self._files, "\n")

    @classmethod
    @contextmanager
    def begun(cls, path: Path, header: dict[str, Any]) -> Iterator[_Candidates]:
        """Give the open file; molecules wait beside it until the crystals are complete."""
        start = json.dumps(without_nan(header), indent=1, allow_nan=False)
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8") as file,
            TemporaryFile("w+", encoding="utf-8", dir=path.parent) as molecules,
        ):
            file.write(start.removesuffix("}").rstrip() + ',\n "crystals": [')
            yield cls(path, file, molecules)
            file.write('\n ],\n "molecules": [')
            molecules.seek(0)
            shutil.copyfileobj(molecules, file)
            file.write("\n ]\n}\n")

    def add(self, kind: str, record: dict[str, Any]) -> None:
        """Append a record."""
        self._files[kind].write(self._between[kind] + json.dumps(record, allow_nan=False))
        self._between[kind] = ",\n"


def _relaxed_frame(row: AtomsRow, data: dict[str, Any]) -> Atoms:
    """A relaxed structure with energy, forces and stress, and its place on the hull."""
    atoms: Atoms = row.toatoms()
    atoms.info = {
        KEY: dict(data[KEY]),
        "converged": bool(row["converged"]),
        "potential": row["potential"],
        RELAX: without_nan(data["relaxation"]),  # for `adit hull`
    }
    for name in ("formation_energy_per_atom", "energy_above_hull"):
        if name in row:
            atoms.info[name] = float(row[name])
    return atoms


def _record(
    row: AtomsRow, data: dict[str, Any], sample: Sample | None, rank: int | None
) -> dict[str, Any]:
    content: dict[str, Any] = {"id": data[KEY]["id"], "formula": None, "num_atoms": 0}
    if sample is not None:
        content["formula"] = rendering.formula(sample)
        content["num_atoms"] = sample.num_atoms
    columns = dict(row.key_value_pairs)
    for name in ("sample_id", "smiles", "kind", "number", "composition"):
        columns.pop(name, None)
    if row["kind"] == "crystal":
        content |= dict.fromkeys(("unique", "novel", "energy_above_hull", "relaxation", "hull"))
        content["rank"] = rank
    content |= columns
    for name in ("relaxation", "hull", "prefilter", "prefilter_look", "dft"):
        if name in data:
            content[name] = data[name]
    content |= data.get("report", {})
    content["provenance"] = data[KEY]
    content = without_nan(content)
    if sample is not None:
        content["structure"] = rendering.structure(sample)  # the provenance stands beside it
    return content


def ranking(store: Store, num: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the candidates, lowest energy above hull first, as rows of the ranked table.

    What a candidate is, is in `Store.candidates`.
    """
    for rank, row in enumerate(store.rows(ids=store.candidates(num)), start=1):
        yield _ranked(row, rank)


def _ranked(row: AtomsRow, rank: int) -> dict[str, Any]:
    data = row.data
    values = {name: row.get(name) for name in RANKING}
    values |= {name: data["hull"][name] for name in RANKING if name in data["hull"]}
    values |= {
        "rank": rank,
        "formula": reduced_formula(row["numbers"]),
        "id": data[KEY]["id"],
        "converged": bool(row["converged"]),
        "space_group": data["relaxation"]["space_group_after"],
    }
    values["file"] = f"{rank:04d}-{values['formula']}.cif" if rank <= MAX_CIFS else None
    content: dict[str, Any] = without_nan(values)
    return content


def _write_ranking(store: Store, ranked: list[int], out: Path) -> list[Path]:
    """The ranked table as CSV and JSON, and CIFs named by rank and formula."""
    from adit_plugins.structures.writers import check_output

    if not ranked:
        return []
    check_output(out / CIFS)  # a folder that is not ours stays
    with replacing(out / CIFS) as folder:
        folder.mkdir()
        with (
            replacing(out / "ranking.csv") as table,
            replacing(out / "ranking.json") as content,
            table.open("w", encoding="utf-8", newline="") as rows,
            content.open("w", encoding="utf-8") as records,
            (folder / INDEX).open("w", encoding="utf-8", newline="") as index,
        ):
            writer = csv.DictWriter(rows, RANKING)
            writer.writeheader()
            files = csv.writer(index)
            files.writerow(INDEX_COLUMNS)
            between = "[\n"
            for rank, row in enumerate(store.rows(ids=ranked), start=1):
                values = _ranked(row, rank)
                writer.writerow(values)
                records.write(between + json.dumps(values, allow_nan=False))
                between = ",\n"
                if values["file"]:
                    atoms = current_atoms(row)
                    _write_cif(atoms, folder / values["file"])
                    files.writerow((values["file"], values["id"], values["formula"], len(atoms)))
            records.write("\n]\n")
    return [out / "ranking.csv", out / "ranking.json", out / CIFS]


def _write_cif(atoms: Atoms, path: Path) -> None:
    from adit_plugins.structures.formats import cif_text

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
