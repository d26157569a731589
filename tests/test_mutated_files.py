"""Damaged files end in counted, explained entries, never in a traceback."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from mutations import mutate, write_files

from adit_plugins.metrics.crystals import evaluate_crystals
from adit_plugins.metrics.references import load_reference
from adit_plugins.metrics.sources import read_set
from adit_plugins.molecules import check_molecules
from adit_plugins.readers import InputError


@pytest.mark.parametrize(
    "num", [pytest.param(200, id="few"), pytest.param(10_000, id="many", marks=pytest.mark.slow)]
)
def test_mutated_files_are_counted_and_never_crash(num: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(num)
    known = load_reference("crystal")
    paths = write_files(tmp_path)
    assert len(paths) >= 50
    texts = {path: path.read_text() for path in paths}
    refused = unreadable = 0
    for _ in range(num):
        original = paths[int(rng.integers(len(paths)))]
        path = tmp_path / f"mutated{original.suffix}"
        path.write_text(mutate(texts[original], rng), encoding="utf-8", errors="replace")
        try:
            found = read_set(path)
        except InputError:  # nothing in it looks like a structure any more
            refused += 1
            continue
        for each in (found.crystals, found.molecules):
            for sample, reason in zip(each.samples, each.reasons, strict=True):
                assert (sample is None) == bool(reason)
                unreadable += sample is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crystals = found.crystals
            metrics = evaluate_crystals(crystals.samples, known, crystals.reasons, workers=0)
            assert all(r.denominator == len(crystals) for r in metrics.rates if r.of == "generated")
            assert all(row["valid"] or row["reason"] for row in metrics.rows)
            molecules = [sample.to_ase() for sample in found.molecules.samples if sample]
            check_molecules([m for m in molecules if len(m) < 20], posebusters=False)
    assert refused < num / 4
    assert unreadable > num / 4
