"""Where the pre-filter `mace-adit` errs against its teacher, and where its relaxations run away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

from adit_integrations.mace_adit import labelled
from adit_integrations.mace_adit import relaxer as mace_adit
from adit_integrations.mace_adit.label_set import Labels
from adit_integrations.mace_adit.sources import read_source
from adit_plugins.relax.results import outcomes
from adit_plugins.relax.run import relax


def label_errors(folders: list[Path], model: mace_adit.SmallMace) -> dict[str, Any]:
    """Mean absolute errors on the test formulas' labels."""
    labels = Labels.load(folders)
    data = labelled.prepare(labels, model.config, labels.split("test"))
    return labelled.evaluate(model.network, data, model.device)


def where_it_fails(folders: list[Path], model: mace_adit.SmallMace) -> dict[str, Any]:
    """Energy errors (meV/atom) on all held-out labels by element, pressure and disagreement."""
    labels = Labels.load(folders)
    chosen = np.concatenate([labels.split("val"), labels.split("test")])
    data = labelled.prepare(labels, model.config, chosen)
    by_head: list[list[float]] = [[] for _ in range(model.config.num_heads)]
    for start in range(0, len(data.graphs), 32):
        rows = list(range(start, min(start + 32, len(data.graphs))))
        for head, found in enumerate(by_head):
            heads = [head] * len(rows)
            errors = labelled.errors(model.network, data, rows, model.device, heads)
            found += errors["energy"].tolist()
    error, spread = np.abs(by_head[0]), np.ptp(by_head[-2:], axis=0)
    pressure = [-float(np.trace(each)) / 3 / GPa for each in data.stress.numpy()]
    by_element: dict[str, list[float]] = defaultdict(list)
    for graph, each in zip(data.graphs, error, strict=True):
        for number in np.array(model.config.elements)[np.unique(graph.elements)]:
            by_element[chemical_symbols[number]].append(each)

    def bins(values: Any, edges: list[float]) -> dict[str, list[float]]:
        places = np.digitize(values, edges)
        names = ["below", *map(str, edges)]
        return {
            name: [int((places == i).sum()), round(1000 * float(error[places == i].mean()), 1)]
            for i, name in enumerate(names)
            if (places == i).any()
        }

    worst = {k: [len(v), round(1000 * float(np.mean(v)), 1)] for k, v in by_element.items()}
    return {
        "by_element": dict(sorted(worst.items(), key=lambda item: -item[1][1])),
        "by_pressure_gpa_from": bins(pressure, [-2, 2, 10, 30]),
        "by_disagreement_ev_atom_from": bins(spread, [0.02, 0.05, 0.1]),
    }


def runaways(
    sources: Iterable[Path],
    num: int,
    student: mace_adit.MaceAditRelaxer,
    fmax: float,
    max_steps: int,
) -> dict[str, Any]:
    """How the student relaxes raw samples, valid or not, of any formula, in equal parts by source.

    A result with atoms closer than 0.5 angstrom is a failure already, so `ends` counts those.
    """
    queues = [read_source(path, 20) for path in sources]
    atoms = [each for queue in queues for each in queue[: num // len(queues)]]
    results = relax(
        atoms, lambda: student, fmax, max_steps, workers=0, chunk_atoms=student.chunk_atoms
    )
    volumes = [
        result.atoms.cell.volume / before.cell.volume
        for before, result in zip(atoms, results, strict=True)
        if not result.failed
    ]
    return {
        "structures": len(atoms),
        "max_steps": max_steps,
        "ends": outcomes(results),
        "accepted": len(volumes),
        "accepted_volume_more_than_tripled": sum(bool(volume > 3) for volume in volumes),
        "accepted_volume_less_than_a_third": sum(bool(volume < 1 / 3) for volume in volumes),
    }
