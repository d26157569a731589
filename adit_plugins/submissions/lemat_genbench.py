"""LeMat-GenBench's files: the structures as the CSV that it reads, and what it asks about them.

That leaderboard ranks generators by 2,500 structures, scored as they are given (LeMaterial, arXiv
2512.04562). Nothing is filtered here: it divides by all of them.
"""

from __future__ import annotations

import csv
import json
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from adit_model.outputs import replacing
from adit_plugins.relax.results import bare_structure
from adit_plugins.structures.untrusted import structure_from_dict
from adit_plugins.submissions.shards import MATERIAL_ID, RelaxationSettings

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator

LEADERBOARD = 2500
CARD_ROWS = ("training", "data", "weights", "licence")


def generate(
    generator: ADiTGenerator, num: int, progress: Callable[[int, int | None], None] | None = None
) -> tuple[dict[str, Atoms], dict[str, Any]]:
    """Return samples by id, and the figures about speed and size that the leaderboard asks for.

    Args:
        generator: of crystals.
        num: how many.
        progress: told (done, total).

    Raises:
        ValueError: the generator makes molecules.
    """
    if generator.kind != "crystal":
        raise ValueError("LeMat-GenBench takes crystals; the generator's kind is 'molecule'.")
    model = generator.model
    start = time.perf_counter()
    samples = generator.samples(num, progress=progress)
    seconds = time.perf_counter() - start
    figures = {
        "inference_seconds": round(seconds, 1),
        "inference_structures": num,
        "inference_device": str(next(model.parameters()).device),
        "inference_machine": platform.machine(),
        "peak_memory_MB": round(_peak_memory() / 1e6),
        "num_parameters": sum(each.numel() for each in model.parameters()),
        "settings": {name: getattr(generator, name) for name in
                     ("seed", "sampler", "batch_size")}
                    | {"num_steps": generator.steps(), "guidance_scale": generator.guidance()},
        **card_figures(generator.checkpoint),
    }  # fmt: skip
    return {sample.id: sample.to_ase() for sample in samples}, figures


def card_figures(checkpoint: str | None) -> dict[str, str]:
    """Return what a checkpoint's model card says of its training, data, size and licence.

    Nothing where there is no card, as with a published checkpoint.
    """
    from adit_model.checkpoints.folder import CheckpointError, resolve

    try:
        card = resolve(checkpoint) / "README.md"
    except CheckpointError:
        return {}
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    rows = dict(re.findall(r"^\| *([a-z]+) *\| *(.+?) *\|$", text, flags=re.MULTILINE))
    return {f"card_{name}": rows[name] for name in CARD_ROWS if name in rows}


def figures_of(structures: Mapping[str, Atoms]) -> dict[str, str]:
    """Return the model card's figures for samples of ours, if one checkpoint made them all."""
    from adit_plugins.structures.provenance import provenance_in

    made_by = {provenance_in(atoms.info).get("checkpoint") for atoms in structures.values()}
    (name, *others) = made_by or {None}
    return {} if name is None or others else {"checkpoint": name, **card_figures(name)}


def relaxation_of(structures: Mapping[str, Atoms]) -> dict[str, Any] | None:
    """Return the settings of `adit relax` that all structures carry; None if any has none."""
    from adit_plugins.relax.files import record_in

    found = [record_in(atoms).get("settings") for atoms in structures.values()]
    alike = bool(found) and all(each == found[0] for each in found)
    return found[0] if alike and isinstance(found[0], dict) else None


def with_relaxed(
    structures: Mapping[str, Atoms], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Atoms]:
    """Return the relaxed structures; the generated one stays where the relaxation failed."""
    from pymatgen.io.ase import AseAtomsAdaptor

    def one(name: str) -> Atoms:
        content = records[name]["structure"]
        if content is None:
            return structures[name]
        return AseAtomsAdaptor.get_atoms(structure_from_dict(content), msonable=False)

    return {name: one(name) for name in structures}


def write(
    structures: Mapping[str, Atoms],
    folder: Path,
    num: int,
    relaxation: Mapping[str, Any] | None,
    figures: Mapping[str, Any],
    unreadable: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write `structures.csv` and `submission.json`; return both.

    Args:
        structures: crystals by id.
        folder: for the files.
        num: how many there must be, with those that are unreadable; 2,500 for the leaderboard.
        relaxation: settings of a relaxation that all have been through, or None.
        figures: what else is known: of `generate`.
        unreadable: by name, why a structure is none; it has no row, and is in the form.

    Raises:
        ValueError: another number of structures, or one that is no crystal.
    """
    bad = dict(unreadable or {})
    if (total := len(structures) + len(bad)) != num:
        raise ValueError(
            f"{total} structures, not {num}. The leaderboard takes {LEADERBOARD}; "
            "for a trial with others pass --num."
        )
    for name, atoms in structures.items():
        if not atoms.pbc.all() or not len(atoms):
            raise ValueError(f"{name} is no crystal; LeMat-GenBench takes crystals only.")
    folder.mkdir(parents=True, exist_ok=True)
    table, form = folder / "structures.csv", folder / "submission.json"
    with replacing(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([MATERIAL_ID, "structure"])
        writer.writerows([name, _as_json(atoms)] for name, atoms in structures.items())
    content = {
        "num_structures": len(structures),
        "for_the_leaderboard": len(structures) == LEADERBOARD,
        "unreadable": bad,
        "pre_relaxed": relaxation is not None,
        "relaxation": None if relaxation is None else dict(relaxation),
        "filtered": False,
        **figures,
    }
    with replacing(form) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return table, form


def relaxation_settings(
    settings: RelaxationSettings, records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the settings of a relaxation done here, with how it ended."""
    failed = sum(record["structure"] is None for record in records.values())
    return {
        **asdict(settings),
        "optimizer": "FIRE, FrechetCellFilter",
        "converged": sum(bool(record["converged"]) for record in records.values()),
        "constraints_dropped": sum(
            record["constraints"] == "dropped" for record in records.values()
        ),
        "failed_and_given_unrelaxed": failed,
    }


def _as_json(atoms: Atoms) -> str:
    return json.dumps(bare_structure(atoms).as_dict())


def _peak_memory() -> float:
    """Bytes of memory that this process has had at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
