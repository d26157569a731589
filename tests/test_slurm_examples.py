"""The scripts for Slurm, run here: its `srun` starts the tasks of all nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adit_plugins.generation.shards import read_shards

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "examples" / "slurm"
# Each node has a task, as `--ntasks-per-node=1` says; a signal to one goes to all.
SRUN = """#!/bin/bash
trap 'kill -TERM $(jobs -p)' TERM
for ((node = 0; node < ${SLURM_NNODES:-1}; node++)); do "$@" & done
status=0
for job in $(jobs -p); do
  wait "$job" || status=$?
  while kill -0 "$job" 2>/dev/null; do wait "$job" || status=$?; done
done
exit $status
"""


@pytest.fixture
def tiny_data(tmp_path: Path) -> list[str]:
    """Thirty crystals of two atoms as prepared arrays."""
    import torch

    from adit_model.data import PreparedData

    lengths = torch.full((30, 3), 4.0) + torch.arange(30)[:, None] / 30
    PreparedData(
        "crystals",
        "crystal",
        torch.tensor([11, 17] * 30, dtype=torch.uint8),
        torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]).repeat(30, 1),
        torch.full((30,), 2, dtype=torch.int32),
        torch.zeros(30, dtype=torch.uint8),
        torch.cat([lengths, torch.full((30, 3), 90.0)], dim=1),
    ).save(tmp_path / "crystals.safetensors")
    return [str(tmp_path / "crystals.safetensors")]


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The variables of a job, with programs that stand for Slurm's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\necho 127.0.0.1\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for name, module in (("adit", "adit_plugins.cli"), ("torchrun", "torch.distributed.run")):
        (programs / name).write_text(f'#!/bin/bash\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def documented(script: str) -> list[str]:
    """The arguments that the script's own comment shows."""
    text = (SLURM / script).read_text().replace("\\\n#", " ")
    (line,) = re.findall(rf"^#\s+sbatch examples/slurm/{script} (.+)$", text, flags=re.MULTILINE)
    return line.split()


@pytest.mark.slow
def test_two_nodes_train_end_at_a_signal_and_go_on(
    slurm: dict[str, str], tmp_path: Path, tiny_data: list[str], tiny_checkpoint: str
) -> None:
    shown = documented("train.sh")
    assert shown[:2] == ["runs/denoiser", "denoiser"]
    assert {"--data", "--autoencoder", "--minutes", "--tokens"} < set(shown)
    run = tmp_path / "run"
    command = ["bash", str(SLURM / "train.sh"), str(run), "denoiser", "--data", *tiny_data]
    command += ["--autoencoder", tiny_checkpoint, "--tokens", "64", "--minutes", "10"]
    command += ["--width", "16", "--depth", "1", "--num-heads", "2", "--log-steps", "1"]
    command += ["--precision", "float32", "--device", "cpu", "--threads", "1"]
    job = subprocess.Popen(command, env=slurm, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    log = run / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 3):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    # Slurm signals the tasks; the script itself waits for them.
    for pid in children_of(job.pid):
        os.kill(pid, signal.SIGTERM)
    _, said = job.communicate(timeout=120)
    assert job.returncode != 0, said
    assert "continue with --resume" in said, said
    settings = json.loads((run / "training.json").read_text())
    assert settings["processes"] == 2
    steps = json.loads(log.read_text().splitlines()[-1])["step"]
    again = [*command, "--steps", str(steps + 3)]
    subprocess.run(again, env=slurm, check=True, timeout=120)
    assert json.loads(log.read_text().splitlines()[-1])["step"] == steps + 3


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(each) for each in found.stdout.split()]


@pytest.mark.slow
def test_an_array_generates_what_one_job_would(
    slurm: dict[str, str], tmp_path: Path, tiny_checkpoint: str
) -> None:
    shown = documented("generate.sh")
    assert shown == ["big", "--num", "1000000", "--shard-size", "10000"]
    out = tmp_path / "big"
    command = ["bash", str(SLURM / "generate.sh"), str(out), "--num", "10", "--shard-size", "4"]
    command += ["--checkpoint", tiny_checkpoint, "--num-steps", "2", "--workers", "0"]
    for task in ("1", "0"):
        array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_NNODES": "1"}
        subprocess.run(command, env=slurm | array, check=True, timeout=120)
    assert [sample.id for sample in read_shards(out)] == [f"tiny/0/{i}" for i in range(10)]


LOCAL_SITE = """
import os
from parsl.config import Config
from adit_integrations.parsl_executor import local_config
config = local_config(1)
"""


@pytest.mark.slow
def test_a_campaign_runs_on_parsl_and_goes_on(
    slurm: dict[str, str], tmp_path: Path, tiny_checkpoint: str
) -> None:
    pytest.importorskip("parsl")
    shown = documented("campaign.sh")
    assert shown[:2] == ["campaign", "examples/slurm/site.py"]
    (tmp_path / "site.py").write_text(LOCAL_SITE)
    out = tmp_path / "campaign"
    command = ["bash", str(SLURM / "campaign.sh"), str(out), str(tmp_path / "site.py")]
    command += ["--num", "4", "--kind", "crystal", "--no-relax", "--checkpoint", tiny_checkpoint]
    command += ["--num-steps", "2"]
    for _ in range(2):  # the second finds all done
        done = subprocess.run(command, env=slurm, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "4 structures in" in done.stdout


def test_the_site_is_one_of_slurm() -> None:
    pytest.importorskip("parsl")
    import runpy

    from parsl.providers import SlurmProvider

    config = runpy.run_path(str(SLURM / "site.py"))["config"]
    (executor,) = config.executors
    assert isinstance(executor.provider, SlurmProvider)
    assert executor.provider.partition == "gpu"


@pytest.mark.parametrize("script", sorted(path.name for path in SLURM.glob("*.sh")))
def test_a_script_says_what_it_needs(script: str) -> None:
    text = (SLURM / script).read_text()
    assert text.startswith("#!/bin/bash\n") and "set -euo pipefail" in text
    assert re.search(r"^#SBATCH --signal=(B:)?TERM@\d+$", text, flags=re.MULTILINE)
    subprocess.run(["bash", "-n", str(SLURM / script)], check=True)
