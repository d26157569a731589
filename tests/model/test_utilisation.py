"""How much of the hardware a run uses: the operations of a step, and the rate they are made at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_monitoring import make_trainer, silent

from adit_model.training.running import run
from adit_model.training.utilisation import COUNTED, FlopMeter, matrix_product_rate

CPU = torch.device("cpu")


def test_products_are_counted_forth_and_back() -> None:
    meter = FlopMeter(CPU, torch.float32)
    assert meter.row(1, 1.0) == {}
    layer, x = torch.nn.Linear(64, 32), torch.ones(10, 64)
    for _ in range(COUNTED):
        with meter.counting():
            layer(x).square().sum().backward()
    # 2 operations for each weight and row, and as many for the gradient of the weights.
    assert (meter.total, meter.steps) == (COUNTED * 2 * (2 * 10 * 64 * 32), COUNTED)
    meter.best = 1e9
    row = meter.row(steps=1000, seconds=2.0)
    assert row["tflops_per_second"] == pytest.approx(2 * 2 * 10 * 64 * 32 * 500 / 1e12, rel=1e-3)
    assert row["flop_utilisation"] == pytest.approx(row["tflops_per_second"] * 1000, rel=1e-3)


def test_the_log_tells_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=4)
    assert run(trainer, silent)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(0 < row["flop_utilisation"] < 1 for row in rows)
    assert matrix_product_rate(CPU, torch.float32) > 1e8
