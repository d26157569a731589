"""Damaged files end in counted, explained entries, never in a traceback."""

from __future__ import annotations

import resource
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from mutations import mutate, same_structure, without_a_line, write_files

from adit_plugins.metrics.crystals import evaluate_crystals
from adit_plugins.metrics.references import load_reference
from adit_plugins.metrics.sets import read_set
from adit_plugins.structures.entries import InputError
from adit_plugins.structures.reading import iter_entries
from adit_plugins.validity.molecules import check_molecules


@pytest.mark.parametrize(
    "num", [pytest.param(200, id="few"), pytest.param(20_000, id="many", marks=pytest.mark.slow)]
)
def test_mutated_files_are_counted_and_never_crash(num: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(num)
    known = load_reference("crystal")
    paths = list(write_files(tmp_path))
    assert len(paths) >= 100
    texts = {path: path.read_text() for path in paths}
    refused = unreadable = 0
    for _ in range(num):
        original = paths[int(rng.integers(len(paths)))]
        path = tmp_path / f"mutated{original.suffix}"
        path.write_text(mutate(texts[original], rng), encoding="utf-8", errors="replace")
        start = time.process_time()
        try:
            found = read_set(path)
        except InputError:  # nothing in it looks like a structure any more
            refused += 1
            continue
        finally:
            assert time.process_time() - start < 10
        for each in (found.crystals, found.molecules):
            for sample, reason in zip(each.samples, each.reasons, strict=True):
                assert (sample is None) == bool(reason)
                unreadable += sample is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crystals = found.crystals
            metrics = evaluate_crystals(crystals.samples, known, crystals.reasons, workers=0)
            assert all(r.denominator == len(crystals) for r in metrics.rates if r.of == "given")
            assert all(row["valid"] or row["reason"] for row in metrics.rows)
            molecules = [sample.to_ase() for sample in found.molecules.samples if sample]
            check_molecules([m for m in molecules if len(m) < 20], posebusters=False)
    assert refused < num / 3
    assert unreadable > num / 5


@pytest.mark.parametrize(
    "num", [pytest.param(400, id="few"), pytest.param(20_000, id="many", marks=pytest.mark.slow)]
)
def test_a_structure_that_is_read_is_the_original_or_is_found_out(num: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(num)
    files = write_files(tmp_path)
    paths, texts = list(files), {path: path.read_text() for path in files}
    kept = 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(num):
        original = paths[int(rng.integers(len(paths)))]
        path = tmp_path / f"mutated{original.suffix}"
        path.write_text(without_a_line(texts[original], rng))
        try:
            entries = list(iter_entries(path, []))
        except InputError:
            continue
        for entry in entries:
            if entry.atoms is None:
                assert entry.reason
            elif not any(same_structure(entry.atoms, each) for each in files[original]):
                # Atoms upon each other are found out by every rule of validity.
                distances = entry.atoms.get_all_distances(mic=True)[
                    np.triu_indices(len(entry.atoms), 1)
                ]
                assert distances.min(initial=9) < 0.3, (original.name, path.read_text())
            else:
                kept += 1
    assert kept > num / 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 200_000  # kilobytes
