"""What each row of a store adds to the campaign's files, as text; in processes where it is much."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins import processes
from adit_plugins.campaign import rendering
from adit_plugins.campaign.endings import ending, structure_row
from adit_plugins.campaign.records import current_atoms, generated_sample
from adit_plugins.campaign.store import Store
from adit_plugins.campaign.store_queries import PAGE
from adit_plugins.outputs import json_text, without_nan
from adit_plugins.relax.files import RELAX
from adit_plugins.structures.facts import reduced_formula
from adit_plugins.structures.formats import cif_text, sdf_text
from adit_plugins.structures.provenance import KEY
from adit_plugins.structures.samples import Sample

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

log = logging.getLogger(__name__)

MAX_CIFS = 1000  # a folder with more serves nobody; all are in relaxed.extxyz
IN_PROCESSES = 10_000  # rows; what fewer take is over before a process has its imports
MAX_PROCESSES = 8
PAGE_SECONDS = 300.0  # that a page may take; it takes 0.2
RANKING = (
    "rank", "formula", "id", "origin", "novelty", "neutral_by", "formation_energy_per_atom",
    "energy_above_hull", "raw_energy_above_hull",
    "metastable_probability", "converged", "num_reference_phases", "num_subsystems_covered",
    "num_subsystems", "likely_too_low_by", "hull", "potential", "space_group",
    "confirm_energy_above_hull",
    "confirm_difference", "confirm_agrees", "confirm_potential", "dft_formation_energy_per_atom",
    "dft_energy_above_hull", "dft_engine", "file",
)  # fmt: skip
FACTS = (  # of a candidate, in its CIF
    "origin", "rank", "energy_above_hull", "formation_energy_per_atom", "potential", "converged",
    "metastable_probability", "novelty", "neutral_by", "confirm_energy_above_hull",
    "confirm_potential", "dft_energy_above_hull", "dft_engine",
)  # fmt: skip
# Columns with a place of their own in a record.
_OWN = {"sample_id", "smiles", "kind", "number", "composition"}
_PARTS = ("relaxation", "hull", "prefilter", "prefilter_look", "confirm", "dft")


@dataclass(frozen=True)
class RowText:
    """A row in the files.

    Attributes:
        columns: its verdicts.
        num_atoms: of the structure.
        record: JSON of all that is known of it.
        frames: what it adds to the files of structures, by their names.
        rank: among the candidates.
        ranked: JSON of its row in the ranked table; empty where it is no candidate.
        listed: its row in the table of all structures.
    """

    columns: dict[str, Any]
    num_atoms: int
    record: str
    frames: dict[str, str] = field(default_factory=dict)
    rank: int | None = None
    ranked: str = ""
    listed: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Page:
    """Rows that are rendered together.

    Attributes:
        store: its folder.
        ids: of the rows.
        ranks: of those that are candidates, by id.
        cifs: a folder for the CIFs of the first candidates.
    """

    store: Path
    ids: Sequence[int]
    ranks: dict[int, int]
    cifs: Path | None


def all_texts(store: Store, ranked: Sequence[int], cifs: Path | None) -> Iterator[RowText]:
    """Yield the texts of all rows, in order.

    Args:
        store: of the campaign.
        ranked: ids of the candidates, the best first.
        cifs: an existing folder for the CIFs of the first candidates.
    """
    ids = store.ids()
    ranks = {row_id: rank for rank, row_id in enumerate(ranked, start=1)}
    pages = [
        Page(store.folder, part, {each: ranks[each] for each in part if each in ranks}, cifs)
        for part in (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
    ]
    num_processes = min(processes.available_cores(), MAX_PROCESSES)
    done = 0
    if len(ids) >= IN_PROCESSES and num_processes > 1:
        try:
            for texts in _in_processes(store, pages, num_processes):
                yield from texts
                done += 1
        except processes.WorkerStartError as error:  # say, a script without its `if __name__`
            log.warning("the files are written by one process: %s", error)
    for page in pages[done:]:
        yield from _texts(store, page)


def _in_processes(store: Store, pages: Sequence[Page], number: int) -> Iterator[list[RowText]]:
    return processes.map(
        _texts_in_a_process,
        pages,
        lambda page, _: list(_texts(store, page)),
        workers=number,
        time_limit=PAGE_SECONDS,
        chunk_size=1,
    )


def _texts_in_a_process(page: Page) -> list[RowText]:
    with Store(page.store, read_only=True) as store:
        return list(_texts(store, page))


def _texts(store: Store, page: Page) -> Iterator[RowText]:
    for row in store.rows(ids=page.ids):
        columns, data, sample = row.key_value_pairs, row.data, generated_sample(row)
        rank = page.ranks.get(row.id)
        ranked = "" if rank is None else _place(row, columns, data, rank, page.cifs)
        record = _record(columns, data, sample, rank)
        listed = structure_row(columns, data, record)
        listed["file"] = json.loads(ranked)["file"] if ranked else None
        frames = dict(_frames(row, data, sample))
        yield RowText(
            columns, len(row["numbers"]), json_text(record), frames, rank, ranked,
            tuple(listed.values()),
        )  # fmt: skip


def _frames(
    row: AtomsRow, data: dict[str, Any], sample: Sample | None
) -> Iterator[tuple[str, str]]:
    """Yield names of files and what the row adds to them."""
    if sample is not None:
        yield f"{sample.kind}s.extxyz", rendering.sample_frame(sample)
    if sample is not None and sample.kind == "molecule":
        with suppress(ValueError):  # no bonds fit; an SDF leaves it out
            yield "molecules.sdf", sdf_text(sample)
    if row.get("relaxed"):
        yield "relaxed.extxyz", rendering.row_frame(row, _relaxed_info(row, data))


def _relaxed_info(row: AtomsRow, data: dict[str, Any]) -> dict[str, Any]:
    """What a relaxed structure carries: where it is from, how it was relaxed, its place."""
    info = {
        KEY: dict(data[KEY]),
        "converged": bool(row["converged"]),
        "potential": row["potential"],
        RELAX: without_nan(data["relaxation"]),  # for `adit hull`
    }
    for name in ("formation_energy_per_atom", "energy_above_hull"):
        if name in row:
            info[name] = float(row[name])
    return info


def _record(
    columns: dict[str, Any], data: dict[str, Any], sample: Sample | None, rank: int | None
) -> dict[str, Any]:
    content: dict[str, Any] = {"id": data[KEY]["id"], "formula": None, "num_atoms": 0}
    if sample is not None:
        content["formula"] = rendering.formula(sample)
        content["num_atoms"] = sample.num_atoms
    if columns["kind"] == "crystal":
        content |= dict.fromkeys(("unique", "novel", "energy_above_hull", "relaxation", "hull"))
        content["rank"] = rank
    content["ended"] = ending(columns, data, rank)
    content |= {name: value for name, value in columns.items() if name not in _OWN}
    content |= {name: data[name] for name in _PARTS if name in data}
    content |= data.get("report", {})
    content["provenance"] = data[KEY]
    if sample is not None:
        content["structure"] = rendering.structure(sample)  # the provenance stands beside it
    return content


def ranking(store: Store, num: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the candidates (`Store.candidates`) as rows of the ranked table, the best first."""
    for rank, row in enumerate(store.rows(ids=store.candidates(num)), start=1):
        yield without_nan(_ranked(row, row.key_value_pairs, row.data, rank))


def _place(
    row: AtomsRow, columns: dict[str, Any], data: dict[str, Any], rank: int, cifs: Path | None
) -> str:
    """Return a candidate's row in the table as JSON; write its CIF if it is among the first."""
    values = _ranked(row, columns, data, rank)
    if cifs is not None and values["file"]:
        text = cif_text(Sample.from_ase(current_atoms(row)), {name: values[name] for name in FACTS})
        (cifs / values["file"]).write_text(text, encoding="utf-8")
    return json_text(values)


def _ranked(
    row: AtomsRow, columns: dict[str, Any], data: dict[str, Any], rank: int
) -> dict[str, Any]:
    values = {name: columns.get(name) for name in RANKING}
    values |= {name: data["hull"][name] for name in RANKING if name in data["hull"]}
    values |= {
        "rank": rank,
        "hull": data["hull"].get("source", ""),
        "formula": reduced_formula(row["numbers"]),
        "id": data[KEY]["id"],
        "converged": bool(columns["converged"]),
        "space_group": data["relaxation"]["space_group_after"],
    }
    values["file"] = f"{rank:04d}-{values['formula']}.cif" if rank <= MAX_CIFS else None
    return values
