"""A network that two processes have a part of each: the losses of one, and any number goes on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_distributed import TORCHRUN, rows, start_two, unseen_too, wait_for_lines
from test_training import TINY, make_data

from adit_model import ADiT
from adit_model.training import sharded
from adit_model.training.cli import main
from adit_model.training.settings import TrainingError
from adit_model.training.sharded import check_shardable

SHARDED = [*TORCHRUN, "-m", "adit_model.training"]
STEADY = ["--decay", "0.001", "--warmup-steps", "2", "--validate-minutes", "1e-9"]


def same_losses(expected: Path, found: Path) -> None:
    """Of every step, and the gradients' norms."""
    pairs = list(zip(rows(expected), rows(found), strict=True))
    for a, b in pairs:
        for name in a:
            if name.endswith(("_loss", "norm")):
                assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-5), (name, a["step"])
    assert len(pairs) == 4
    assert "molecule_validation_loss" in pairs[0][0]


def test_parts_learn_what_the_whole_does_and_one_process_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["autoencoder", "--data", *unseen_too(tmp_path), *TINY, *STEADY]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*common, "--accumulate", "2", "--steps", "4", "--out", str(one)]) == 0
    arguments = [*common, "--steps", "2", "--shard-weights", "--out", str(two)]
    subprocess.run([*SHARDED, *arguments], check=True, timeout=120)
    # Each has written its part of everything, in safetensors.
    (parts,) = (two / "shards").iterdir()
    assert len(list(parts.glob("*.safetensors"))) == len(list(parts.iterdir())) == 2
    sizes = [path.stat().st_size for path in parts.iterdir()]
    assert max(sizes) < 1.2 * min(sizes)
    # The model is a folder as always.
    model = ADiT.from_pretrained(two / "model", device="cpu")
    assert model.config.provenance["autoencoder"]["processes"] == 2
    capfd.readouterr()
    assert main([*common, "--accumulate", "2", "--steps", "4", "--out", str(two), "--resume"]) == 0
    assert "--shard-weights: True until here, False from here on" in capfd.readouterr().out
    same_losses(one, two)
    assert not list((two / "shards").iterdir())
    weights = [ADiT.from_pretrained(run / "model", device="cpu").state_dict() for run in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_the_second_stage_goes_on_in_parts_with_what_one_process_began(tmp_path: Path) -> None:
    """Half of the batches begin with a guess, which all processes have to make together."""
    data = ["--data", *unseen_too(tmp_path)]
    first, one, two = tmp_path / "first", tmp_path / "one", tmp_path / "two"
    assert main(["autoencoder", *data, *TINY, "--steps", "2", "--out", str(first)]) == 0
    common = ["denoiser", *data, *TINY, *STEADY, "--condition", "elements"]
    start = ["--autoencoder", str(first / "model"), "--accumulate", "2"]
    assert main([*common, *start, "--steps", "4", "--out", str(one)]) == 0
    assert main([*common, *start, "--steps", "1", "--out", str(two)]) == 0
    arguments = [*common, "--resume", "--shard-weights", "--out", str(two), "--keep", "2"]
    for steps in ("3", "4"):
        subprocess.run([*SHARDED, *arguments, "--steps", steps], check=True, timeout=120)
    same_losses(one, two)
    # The kept checkpoint has its parts with it, and is a run of its own.
    (kept,) = (two / "kept").iterdir()
    assert [each.name for each in (kept / "shards").iterdir()] == ["step-00000003"]
    ADiT.from_pretrained(kept / "model", device="cpu")
    again = [*common, "--accumulate", "2", "--steps", "4", "--resume", "--out", str(kept)]
    assert main(again) == 0
    assert rows(kept)[-1]["crystal_loss"] == pytest.approx(rows(one)[-1]["crystal_loss"], rel=1e-4)


@pytest.mark.slow
def test_a_lost_process_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["autoencoder", "--data", *make_data(tmp_path), "--out", str(run), *TINY]
    arguments += ["--minutes", "5", "--save-minutes", "0", "--shard-weights"]
    first, second = both = start_two(arguments)
    wait_for_lines(run / "log.jsonl", 5, both)
    second.kill()
    _, error = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 2
    (line,) = [each for each in error.splitlines() if each.startswith("Error")]
    assert "process 1 of 2 has lost another one" in line and "last checkpoint stands" in line
    steps = str(len(rows(run)) + 1)
    assert main([*arguments[:-1], "--steps", steps, "--resume"]) == 0
    assert json.loads((run / "training.json").read_text())["processes"] == 1


def test_what_does_not_go_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_shardable("denoiser", "adamw", compiled=False)
    for given, word in (
        (("prior", "adamw", False), "of the autoencoder and the denoiser"),
        (("denoiser", "muon", False), "take --optimizer adamw"),
        (("denoiser", "adamw", True), "--compile has not been tried"),
    ):
        with pytest.raises(TrainingError, match=word):
            check_shardable(*given)
    monkeypatch.delattr(torch.distributed.checkpoint, "HuggingFaceStorageReader")
    with pytest.raises(TrainingError, match=re.escape(f"torch {torch.__version__} cannot")):
        check_shardable("denoiser", "adamw", compiled=False)


def test_damaged_parts_are_told(tmp_path: Path) -> None:
    (tmp_path / "model-00001.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match="cannot be read"):
        sharded.read_shards(tmp_path, [])
    with pytest.raises(TrainingError, match="cannot be read"):
        sharded.read_shards(tmp_path / "missing", [])


ON_A_GPU = """
import copy, torch
from torch import distributed
from adit_model.config import DenoiserConfig
from adit_model.denoiser import Denoiser
from adit_model.training.sharded import shard
distributed.init_process_group("nccl")
device = torch.device("cuda", 0)
torch.manual_seed(0)
whole = Denoiser(DenoiserConfig(width=256, depth=6, num_heads=4)).to(device)
for each in whole.parameters():
    each.data.add_(0.02 * torch.randn_like(each))
parts = copy.deepcopy(whole)
shard(parts, device)
x, t = torch.randn(16, 12, 8, device=device), torch.rand(16, device=device)
labels = {"kind": torch.ones(16, dtype=torch.long, device=device)}
for network in (whole, parts):
    output = network(x, t, labels)
    output.square().mean().backward()
    assert output.abs().mean() > 0.1
    last = output if network is whole else (last - output).abs().max()
assert last == 0
for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
    assert a.grad is None or (a.grad - b.grad.full_tensor()).abs().max() == 0
distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_nccl_on_one_gpu(tmp_path: Path) -> None:
    script = tmp_path / "parts.py"
    script.write_text(ON_A_GPU)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", str(script)]
    subprocess.run(command, check=True, timeout=120)
