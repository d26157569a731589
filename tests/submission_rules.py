"""The benchmarks' rules for a submission, written from their own instructions.

Nothing here comes from the code that writes the files.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import hashlib
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import yaml
from pymatgen.core import Structure

REQUIRED = {
    "authors", "architecture_types", "environment", "checkpoint_url", "dates", "doi", "license",
    "lifecycle", "model_key", "model_name", "model_params", "model_version", "openness", "paper",
    "pr_url", "repo", "targets", "test_task", "train_task", "training_sets",
}  # fmt: skip
OPTIONAL = {
    "trained_by", "docs", "pypi", "hyperparams", "notes", "size", "fine_tune", "n_estimators",
    "training_cost", "superseded_by", "metrics",
}  # fmt: skip
CHOICES = {
    "lifecycle": "active superseded deprecated aborted",
    "openness": "OSOD OSCD CSOD CSCD",
    "train_task": "RP2RE RS2RE S2E S2RE S2EF S2EFS S2EFSM",
    "test_task": "IP2E IS2E IS2RE IS2RE-SR",
    "targets": "E EF_G EF_D EFS_G EFSH_G EFS_D EFS_GM EFS_DM",
}
ARCHITECTURES = "gnn transformer random_forest fingerprint bayesian_optimization unknown"
LICENCES = (
    "MIT,Apache-2.0,CC-BY-4.0,CC-BY-SA-4.0,CC-BY-NC-4.0,GPL-3.0,BSD-3-Clause,LGPL-3.0,"
    "Meta Research,ASL,unreleased"
)
METRICS = {
    "F1", "DAF", "Precision", "Recall", "Accuracy", "TPR", "FPR", "TNR", "FNR", "TP", "FP", "TN",
    "FN", "MAE", "RMSE", "R2", "missing_preds",
}  # fmt: skip
SUBSETS = {"full_test_set", "most_stable_10k", "unique_prototypes"}
DAY = r"\d{4}-\d\d-\d\d"


def check_discovery(path: Path, materials: set[str]) -> dict[str, float]:
    """Check `<date>-discovery.csv.gz` and return its predictions; an empty one is NaN."""
    assert re.fullmatch(rf"{DAY}-discovery\.csv\.gz", path.name)
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    assert set(rows[0]) == {"material_id", "e_form_per_atom"}
    found = {row["material_id"]: float(row["e_form_per_atom"] or "nan") for row in rows}
    assert len(rows) == len(found)
    assert set(found) == materials  # no prediction is left out for being bad
    assert all(math.isnan(each) or -10 < each < 20 for each in found.values())
    return found


def check_geo_opt(path: Path, materials: set[str]) -> dict[str, dict[str, Any]]:
    """Check `<date>-geo-opt.jsonl.gz` and return its rows by material."""
    assert re.fullmatch(rf"{DAY}-geo-opt\.jsonl\.gz", path.name)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = {row["material_id"]: row for row in map(json.loads, lines)}
    assert len(rows) == len(lines)
    assert set(rows) <= materials
    for row in rows.values():
        assert set(row) == {"material_id", "structure", "energy", "converged", "n_steps"}
        assert len(Structure.from_dict(row["structure"])) > 0
        assert isinstance(row["converged"], bool)
        assert isinstance(row["n_steps"], int) and row["n_steps"] >= 0
        assert math.isfinite(row["energy"])
    return rows


def check_model(path: Path, root: Path) -> dict[str, Any]:
    """Check `models/<family>/<model_key>.yml` and the files that it names; return it."""
    content = yaml.safe_load(path.read_text())
    assert REQUIRED <= set(content) <= REQUIRED | OPTIONAL
    assert re.fullmatch(r"[a-z0-9]+(?:[.-][a-z0-9]+)*", content["model_key"])
    assert path.name == f"{content['model_key']}.yml"
    for key, known in CHOICES.items():
        assert content[key] in known.split()
    assert set(content["architecture_types"]) <= set(ARCHITECTURES.split())
    assert {content["license"][part] for part in ("code", "checkpoint")} <= set(LICENCES.split(","))
    assert "@" in content["authors"][0]["email"]
    assert {"dependencies", "python_version"} <= set(content["environment"])
    for day in ("benchmark_added", "paper_published"):
        datetime.date.fromisoformat(content["dates"][day])
    assert isinstance(content["model_params"], int)
    for key in ("doi", "paper", "pr_url", "repo", "checkpoint_url"):
        assert re.match(r"https?://", content[key])
    evaluation = content["hyperparams"]["evaluation"]
    assert evaluation["ase_optimizer"] == "FIRE" and evaluation["cell_filter"] == (
        "FrechetCellFilter"
    )
    for task, suffix in (("discovery", "csv"), ("geo_opt", "jsonl")):
        check_file(content["metrics"][task]["pred_file"], root, path.parent.name, suffix)
    for subset in SUBSETS & set(content["metrics"]["discovery"]):
        numbers = content["metrics"]["discovery"][subset]
        assert set(numbers) == METRICS
        assert all(isinstance(each, float) for each in numbers.values())
    return dict(content)


def check_file(entry: dict[str, Any], root: Path, family: str, suffix: str) -> None:
    """Check a file entry: name, url, and size with md5 or neither."""
    assert {"name", "url"} <= set(entry) <= {"name", "url", "size", "md5"}
    assert ("size" in entry) is ("md5" in entry)
    assert re.match(rf"models/{family}/[a-z0-9.-]+/{DAY}-[a-z-]+\.{suffix}\.gz$", entry["name"])
    content = (root / entry["name"]).read_bytes()
    assert entry["size"] == len(content)
    assert entry["md5"] == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert entry["url"].startswith("https://")


def check_lemat_csv(path: Path, num: int) -> list[Structure]:
    """Read a CSV as LeMat-GenBench's runner does: pymatgen's JSON in the column `structure`."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == num
    found = []
    for row in rows:
        text = row["structure"]
        assert text.strip().startswith("{")  # anything else would be read as CIF
        found.append(Structure.from_dict(json.loads(text)))
        assert not {"structural_validity", "smact_validity"} & set(row)  # would drop structures
    return found
