"""`adit submit matbench-discovery`, from initial structures to scores, without a network."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from click.testing import CliRunner, Result
from submission_rules import SUBSETS, check_discovery, check_geo_opt, check_model

from adit_plugins.cli import main
from adit_plugins.hull.table import Hull
from adit_plugins.submissions.model_file import ModelFile, ModelFileError, template
from adit_plugins.submissions.shards import (
    RelaxationSettings,
    ShardError,
    make_jobs,
    read_jobs,
    run_jobs,
)

EMT = "ase.calculators.emt:EMT"
MODEL = {
    "model_name": "CHGNet",
    "model_version": "0.3.0",
    "authors": [{"name": "A. Nother", "email": "a@example.org"}],
    "environment": {"dependencies": ["chgnet==0.4.2"], "python_version": "3.11"},
    "checkpoint_url": "https://example.org/weights",
    "doi": "https://doi.org/10.1038/s42256-023-00716-3",
    "license": {"code": "BSD-3-Clause", "checkpoint": "BSD-3-Clause"},
    "model_params": 412525,
    "openness": "OSOD",
    "paper": "https://arxiv.org/abs/2302.14231",
    "pr_url": "https://github.com/janosh/matbench-discovery/pull/1",
    "repo": "https://github.com/CederGroupHub/chgnet",
    "targets": "EFS_GM",
    "train_task": "S2EFSM",
    "training_sets": ["MPtrj"],
}


def submit(*arguments: str | Path) -> Result:
    command = ["submit", "matbench-discovery", *map(str, arguments)]
    return CliRunner().invoke(main, command)


def twenty() -> dict[str, Atoms]:
    """Prototypes of the sizes that WBM has (2 to 20 atoms), cells a few per cent off."""
    rng = np.random.default_rng(0)
    found = [bulk(name, "rocksalt", a=a) for name, a in (
        ("NaCl", 5.6), ("MgO", 4.2), ("LiF", 4.0), ("KBr", 6.6), ("CaO", 4.8))]  # fmt: skip
    found += [bulk(name, "cesiumchloride", a=a) for name, a in (("CsCl", 4.1), ("NaCl", 3.4))]
    found += [bulk(name, "zincblende", a=a) for name, a in (
        ("ZnS", 5.4), ("GaAs", 5.7), ("NaCl", 6.2), ("MgO", 4.6))]  # fmt: skip
    found += [bulk("CaF2", "fluorite", a=5.5), bulk("ZnO", "wurtzite", a=3.25, c=5.2)]
    cubic = [90] * 3
    corner, center, face = (0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)
    for symbols, a in (
        (("Sr", "Ti", "O"), 3.9),
        (("K", "Mg", "F"), 4.0),
        (("Cs", "Pb", "Br"), 5.9),
    ):
        cell = [a] * 3 + cubic
        found.append(crystal(symbols, [corner, center, face], spacegroup=221, cellpar=cell))
    rutile = [corner, (0.305, 0.305, 0)]
    found.append(crystal(("Ti", "O"), rutile, spacegroup=136, cellpar=[4.6, 4.6, 3.0, *cubic]))
    found.append(bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    found.append(bulk("NaF", "rocksalt", a=4.7, cubic=True) * (1, 1, 2))
    found.append(crystal(
        ("Mg", "Al", "O"), [(1 / 8,) * 3, (1 / 2,) * 3, (0.26,) * 3], spacegroup=227, setting=2,
        cellpar=[8.1] * 3 + cubic, primitive_cell=True))  # fmt: skip
    for atoms in found:
        atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.03), scale_atoms=True)
    return {f"wbm-1-{i + 1}": atoms for i, atoms in enumerate(found)}


def write_initial(path: Path, structures: dict[str, Atoms]) -> None:
    frames = []
    for name, atoms in structures.items():
        frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
        frames[-1].info["material_id"] = name
    ase.io.write(path, frames, format="extxyz")


def write_summary(path: Path, structures: dict[str, Atoms]) -> pd.DataFrame:
    """DFT's place: new compounds below the hull, known ones on it, wrong prototypes above."""
    known = Hull.load()
    rows = []
    for i, (name, atoms) in enumerate(structures.items()):
        formula = atoms.get_chemical_formula(empirical=True)
        formation = known.energy_above_hull(formula, 0.0).hull_energy_per_atom
        formation += 0.2 if i in (6, 9, 10) else 0.0
        hull = known if i in (6, 9, 10) or i % 4 == 1 else known.without(formula)
        above = hull.energy_above_hull(formula, formation).energy_above_hull
        rows.append((name, formula, formation, above, i % 7 != 3))
    columns = ["material_id", "formula", "e_form_per_atom_mp2020_corrected",
               "e_above_hull_mp2020_corrected_ppd_mp", "unique_prototype"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(path, index=False)
    return table.set_index("material_id")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yml").write_text(yaml.safe_dump(template("chgnet-0.3.0") | MODEL | {
        "dates": {"benchmark_added": "2026-11-23", "paper_published": "2023-09-14"},
    }))  # fmt: skip
    return tmp_path


def expected_metrics(true: pd.Series, pred: pd.Series) -> dict[str, float]:
    """Counts and errors as the benchmark defines them: stable is at most 0 eV/atom above hull."""
    positive, called = true <= 0, pred <= 0  # NaN is called unstable
    tp, fp = int((positive & called).sum()), int((~positive & called).sum())
    fn, tn = int((positive & ~called).sum()), int((~positive & ~called).sum())
    error = (true - pred).dropna()
    return {
        "TP": tp, "FP": fp, "FN": fn, "TN": tn, "F1": 2 * tp / (2 * tp + fp + fn),
        "Precision": tp / (tp + fp), "Recall": tp / (tp + fn),
        "DAF": tp / (tp + fp) / ((tp + fn) / len(true)), "MAE": float(error.abs().mean()),
        "RMSE": float((error**2).mean() ** 0.5), "missing_preds": int(pred.isna().sum()),
    }  # fmt: skip


def test_twenty_structures_end_to_end(place: Path) -> None:
    pytest.importorskip("matbench_discovery")
    structures = twenty()
    assert len(structures) == 20 and {len(a) for a in structures.values()} > {2, 5, 14}
    write_initial(place / "wbm.extxyz", structures)
    table = write_summary(place / "summary.csv", structures)
    options = ("wbm.extxyz", "--out", "out", "--workers", "0", "--date", "2026-11-23")
    assert submit(*options, "--shard", "1/2").exit_code == 0
    result = submit(
        *options, "--shards", "2", "--summary", "summary.csv", "--model", "model.yml",
        "--discovery-url", "https://figshare.com/files/1",
        "--geo-opt-url", "https://figshare.com/files/2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    root = place / "out" / "models" / "chgnet"
    predictions = check_discovery(
        root / "chgnet-0.3.0" / "2026-11-23-discovery.csv.gz", set(structures)
    )
    rows = check_geo_opt(root / "chgnet-0.3.0" / "2026-11-23-geo-opt.jsonl.gz", set(structures))
    assert len(rows) == 20 and sum(row["converged"] for row in rows.values()) == 20
    # Salt, stable: CHGNet is within 0.05 eV/atom of the Materials Project.
    dft = table["e_form_per_atom_mp2020_corrected"]
    assert predictions["wbm-1-1"] == pytest.approx(dft["wbm-1-1"], abs=0.05)
    model = check_model(root / "chgnet-0.3.0.yml", place / "out")
    assert model["metrics"]["discovery"]["pred_file"]["url"].endswith("/1")
    pred = pd.Series(predictions).reindex(table.index) - dft
    pred += table["e_above_hull_mp2020_corrected_ppd_mp"]
    unique = table["unique_prototype"]
    for subset, members in (("full_test_set", unique | True), ("unique_prototypes", unique)):
        found = model["metrics"]["discovery"][subset]
        assert min(found[count] for count in ("TP", "FN", "TN")) > 0
        true = table["e_above_hull_mp2020_corrected_ppd_mp"][members]
        for name, value in expected_metrics(true, pred[members]).items():
            assert found[name] == pytest.approx(value, abs=1e-5), name
    assert set(model["metrics"]["discovery"]) > SUBSETS


def test_what_breaks_off_goes_on_and_what_fails_is_counted(place: Path) -> None:
    metals = {f"wbm-2-{i}": bulk("Cu", a=3.5 + i / 20) for i in range(5)}
    metals["wbm-2-fe"] = bulk("Fe")  # EMT has no iron
    jobs = make_jobs(metals, place / "shards", RelaxationSettings(EMT, max_steps=60), 2, workers=0)
    with pytest.raises(ShardError, match="not there yet"):
        read_jobs(jobs)
    run_jobs(jobs[:1])
    whole = jobs[0].path.read_text()
    assert len(whole.splitlines()) == 1 + 3
    jobs[0].path.write_text(whole[:-40])  # killed while it wrote the last record
    with pytest.raises(ShardError, match="lacks 1 of 3"):
        read_jobs(jobs)
    kept = whole.splitlines()[1:3]
    again: list[str] = []
    run_jobs(jobs, on_result=again.append)
    assert len(again) == 4  # the lost one and the second shard's three
    assert jobs[0].path.read_text().splitlines()[1:3] == kept
    records = read_jobs(jobs)
    assert set(records) == set(metals)
    failed = records["wbm-2-fe"]
    assert failed["structure"] is failed["energy"] is None
    assert failed["error"].startswith("NotImplementedError")
    with pytest.raises(ShardError, match="another run"):
        run_jobs(
            make_jobs(metals, place / "shards", RelaxationSettings(EMT, max_steps=9), 2, workers=0)
        )
    content = jobs[1].path.read_text().splitlines(keepends=True)
    jobs[1].path.write_text(content[0] + "{damaged\n" + "".join(content[2:]))
    with pytest.raises(ShardError, match="line 2 is damaged"):
        read_jobs(jobs)


def test_shards_run_on_any_executor(place: Path) -> None:
    metals = {f"m-{i}": bulk("Cu", a=3.5 + i / 20) for i in range(4)}
    jobs = make_jobs(metals, place / "shards", RelaxationSettings(EMT), 2, workers=0)
    with ProcessPoolExecutor(1) as executor:
        run_jobs(jobs, executor)
    here = make_jobs(metals, place / "here", RelaxationSettings(EMT), 2, workers=0)
    run_jobs(here)
    first, second = read_jobs(jobs), read_jobs(here)
    assert {k: v["energy"] for k, v in first.items()} == {k: v["energy"] for k, v in second.items()}


def test_without_a_stable_material_there_are_no_metrics_but_all_files(place: Path) -> None:
    pytest.importorskip("matbench_discovery")
    structures = {"wbm-1-1": bulk("NaCl", "rocksalt", a=5.7), "wbm-1-2": bulk("Yb")}
    write_initial(place / "two.extxyz", structures)
    table = pd.DataFrame({
        "material_id": list(structures), "e_form_per_atom_mp2020_corrected": [-2.0, 0.1],
        "e_above_hull_mp2020_corrected_ppd_mp": [0.1, 0.1],
    })  # fmt: skip
    table.to_csv(place / "summary.csv", index=False)
    options = ("two.extxyz", "--out", "out", "--workers", "0", "--max-steps", "2")
    result = submit(*options, "--summary", "summary.csv", "--date", "2026-11-23")
    assert result.exit_code == 0, result.output
    assert "needs stable and unstable materials" in result.output
    folder = place / "out" / "models" / "chgnet" / "chgnet-0.3.0"
    found = check_discovery(folder / "2026-11-23-discovery.csv.gz", set(structures))
    assert math.isnan(found["wbm-1-2"])  # ytterbium has no reference: relaxed, but not placed
    assert len(check_geo_opt(folder / "2026-11-23-geo-opt.jsonl.gz", set(structures))) == 2
    summary = json.loads((place / "out" / "summary.json").read_text())
    assert summary["without prediction"] == 1 and summary["materials"] == 2


def test_the_benchmarks_own_cache_and_its_absence(place: Path) -> None:
    """Its data module reads the place of its cache when it is imported: each in a process."""
    pytest.importorskip("matbench_discovery")
    structures = {"wbm-1-1": bulk("Cu", a=3.7), "wbm-1-2": bulk("Au", a=4.2)}
    (place / "cache" / "wbm").mkdir(parents=True)
    rows = ["material_id,e_form_per_atom_mp2020_corrected,e_above_hull_mp2020_corrected_ppd_mp"]
    rows += [f"{name},-0.1,{above}" for name, above in zip(structures, (-0.1, 0.1), strict=True)]
    table = gzip.compress("\n".join([*rows, ""]).encode())
    (place / "cache" / "wbm" / "2023-12-13-wbm-summary.csv.gz").write_bytes(table)
    initial = place / "cache" / "wbm" / "2024-08-04-wbm-initial-atoms.extxyz.zip"
    with zipfile.ZipFile(initial, "w") as archive:
        for name, atoms in structures.items():
            write_initial(place / "one.extxyz", {name: atoms})
            archive.write(place / "one.extxyz", f"{name}.extxyz")
    command = [sys.executable, "-m", "adit_plugins.cli", "submit", "matbench-discovery",
               "--relaxer", EMT, "--workers", "0", "--date", "2026-11-23", "--out"]  # fmt: skip
    nobody = "http://127.0.0.1:9"
    for cache, out in (("cache", "out"), ("empty", "none")):
        environment = os.environ | {
            "MATBENCH_DISCOVERY_CACHE_DIR": str(place / cache),
            "https_proxy": nobody,
            "HTTPS_PROXY": nobody,
        }
        done = subprocess.run([*command, out], env=environment, capture_output=True, text=True)
        if cache == "cache":
            assert done.returncode == 0, done.stderr
            (path,) = (place / "out").rglob("*-discovery.csv.gz")
            check_discovery(path, set(structures))
            continue
        assert done.returncode == 2
        assert "cannot get the WBM initial structures" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_campaigns_crystals_take_the_same_form(place: Path) -> None:
    salt = bulk("NaCl", "rocksalt", a=5.8)
    salt.info["adit"] = {"id": "adit-joint/0/7"}
    (place / "results").mkdir()
    ase.io.write(place / "in.extxyz", [salt, bulk("Cu")])
    command = ["relax", "in.extxyz", "--out", "results/relaxed.extxyz", "--workers", "0"]
    assert CliRunner().invoke(main, command).exit_code == 0
    result = submit("--from-campaign", "results", "--out", "out", "--date", "2026-11-23")
    assert result.exit_code == 0, result.output
    names = {"adit-joint/0/7", "structure-1"}
    found = check_discovery(place / "out" / "2026-11-23-discovery.csv.gz", names)
    assert -2.2 < found["adit-joint/0/7"] < -1.8
    assert len(check_geo_opt(place / "out" / "2026-11-23-geo-opt.jsonl.gz", names)) == 2


def test_a_campaigns_store_is_read(place: Path) -> None:
    odd = bulk("RbF", "zincblende", a=6.3)  # a novel crystal: others are not relaxed
    ase.io.write(place / "in.extxyz", odd)
    command = ["discover", "in.extxyz", "--out", "results", "--workers", "0", "--max-steps", "5"]
    assert CliRunner().invoke(main, command).exit_code == 0
    (place / "results" / "relaxed.extxyz").unlink()
    result = submit("--from-campaign", "results", "--out", "out", "--date", "2026-11-23")
    assert result.exit_code == 0, result.output
    path = place / "out" / "2026-11-23-geo-opt.jsonl.gz"
    name = json.loads(gzip.decompress(path.read_bytes()))["material_id"]
    found = check_discovery(place / "out" / "2026-11-23-discovery.csv.gz", {name})
    assert -3 < found[name] < -2  # of rock salt RbF: -2.9 eV/atom
    assert check_geo_opt(path, {name})[name]["n_steps"] <= 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lifecycle": "alive"}, "lifecycle is 'alive'; it must be one of active, superseded"),
        ({"model_key": "My_Model"}, "model_key is 'My_Model'; it must be lower case"),
        ({"colour": "red"}, r"unknown keys: colour\. Known: model_name"),
        ({"openness": None}, "openness is None; it must be one of OSOD"),
        ({"architecture_types": ["mlp"]}, "'mlp'; it must be one of gnn"),
        ({"license": {"code": "MIT"}}, "license lacks checkpoint"),
        ({"license": {"code": "WTFPL", "checkpoint": "MIT"}}, "license: code is 'WTFPL'"),
        ({"authors": [{"name": "X"}]}, "an email of the first author"),
        ({"doi": "10.1/2"}, "doi is '10.1/2'; it must be a URL"),
        ({"dates": {"benchmark_added": "now", "paper_published": "2023-01-01"}}, "a date such as"),
        ({"model_params": "many"}, "model_params is 'many'; it must be a whole number"),
        ({"lifecycle": "superseded"}, "superseded_by is None"),
        ({"environment": {"dependencies": []}}, "environment lacks python_version"),
        ({"paper": "https://FILL IN"}, "paper is still to be filled in"),
    ],
)
def test_a_model_file_that_breaks_a_rule_is_refused(
    place: Path, change: dict[str, Any], message: str
) -> None:
    content = yaml.safe_load((place / "model.yml").read_text())
    ModelFile.from_mapping(content)
    with pytest.raises(ModelFileError, match=message):
        ModelFile.from_mapping(content | change)


def test_bad_input_is_one_line(place: Path) -> None:
    write_initial(place / "one.extxyz", {"a": bulk("Cu")})
    two = ase.io.read("one.extxyz", ":") * 2
    ase.io.write("two.extxyz", two)
    (place / "table.csv").write_text("id,energy\n1,2\n")
    one = ("one.extxyz", "--out", "out")
    assert submit("--template", "--model", "new.yml", "--out", "out").exit_code == 0
    for arguments, part in (
        ((*one, "--model", "new.yml"), "still to be filled in"),
        ((*one, "--relaxer", "chgnut"), "'chgnut'"),
        ((*one, "--shards", "2"), "num_shards=2 must be from 1 to the 1"),
        ((*one, "--shard", "2/2"), "is not I/N"),
        ((*one, "--date", "today"), "yyyy-mm-dd"),
        (("two.extxyz", "--out", "out"), "two structures of the material id 'a'"),
        (("none.extxyz", "--out", "out"), "no such file"),
        (("--from-campaign", "none", "--out", "out"), "holds no campaign"),
        (("one.extxyz", "--from-campaign", "x", "--out", "out"), "neither FILE nor --model"),
        ((*one, "--relaxer", EMT, "--workers", "0", "--summary", "table.csv"), "lacks the columns"),
    ):
        result = submit(*arguments)
        assert result.exit_code == 2, result.output
        assert part in result.stderr
        assert result.stderr.count("Error:") == 1
