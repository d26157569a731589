"""Checkpoints of a run: written beside the training, several kept, and read again to resume."""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from adit_model.checkpoints import folder as checkpoint
from adit_model.config import ADiTConfig
from adit_model.outputs import replacing
from adit_model.training.sharded import SHARDS, ShardFolder, name_of, read_shards, remove_others

MODEL, STATE, SETTINGS, KEPT = "model", "state.safetensors", "training.json", "kept"
_STEP = re.compile(r"step-(\d{8,})(-good)?")


def on_cpu(tensor: Tensor) -> Tensor:
    """A copy that training does not change."""
    return tensor.detach().to("cpu", copy=True).contiguous()


@dataclass(frozen=True)
class Checkpoint:
    """A run at a step; nobody else may change the tensors.

    Attributes:
        config: of the model.
        weights: of the model, by name.
        state: what resumes the run.
        progress: counters, with `step`.
        parts: of the state, what the processes have a part of each.
    """

    config: ADiTConfig
    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    progress: dict[str, Any]
    parts: dict[str, Tensor] = field(default_factory=dict)


class CheckpointWriter:
    """Writes one checkpoint after the other in a thread of its own.

    `model/` and `state.safetensors` are the last one. Earlier ones are folders `kept/step-N` with
    the same files, as links: what is written anew never changes an old file. Each is a run that
    `--resume` goes on with.
    """

    def __init__(self, out: Path, keep: int, shards: ShardFolder | None = None) -> None:
        """Write nothing yet.

        Args:
            out: the run folder.
            keep: how many checkpoints stay, the last one included.
            shards: where each of the processes writes a part, which then have to write together.
        """
        self.out, self.keep, self.shards = out, keep, shards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def write(self, checkpoint: Checkpoint) -> None:
        """Begin to write a checkpoint, once the one before is on the disk.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        self._writing = self._thread.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def keep_last(self) -> Path | None:
        """Keep the checkpoint that is on the disk now, whatever follows; None if there is none."""
        self.wait()
        last = self._last()
        if last is None:
            return None
        folder = self._link(f"{name_of(last['step'])}-good", last)
        for other in self._kept(good=True):
            if other != folder:
                shutil.rmtree(other)
        return folder

    def _write(self, found: Checkpoint) -> None:
        progress = dict(found.progress)
        if self.shards is not None:
            self.shards.save(self.out, progress["step"], found.parts)
            if not self.shards.world.is_first:
                return
            progress["shards"] = name_of(progress["step"])
        last = self._last()
        if self.keep > 1 and last is not None and last["step"] != progress["step"]:
            self._link(name_of(last["step"]), last)
        checkpoint.save(self.out / MODEL, found.config, found.weights)
        # The counters ride inside the same file: one rename is atomic, two are not.
        with replacing(self.out / STATE) as temporary:
            save_file(found.state, temporary, {"progress": json.dumps(progress)})
        remove_others(self.out / SHARDS, progress.get("shards"))
        kept = self._kept(good=False)
        for old in kept[: max(0, len(kept) - (self.keep - 1))]:
            shutil.rmtree(old)

    def _last(self) -> dict[str, Any] | None:
        """The counters of the checkpoint on the disk."""
        if not (self.out / STATE).is_file():
            return None
        with safe_open(self.out / STATE, framework="pt") as file:
            found: dict[str, Any] = json.loads(file.metadata()["progress"])
            return found

    def _kept(self, good: bool) -> list[Path]:
        """Folders of earlier checkpoints, the oldest first."""
        if not (self.out / KEPT).is_dir():
            return []
        found = {path: _STEP.fullmatch(path.name) for path in (self.out / KEPT).iterdir()}
        chosen = {p: int(m[1]) for p, m in found.items() if m is not None and bool(m[2]) == good}
        return sorted(chosen, key=lambda path: chosen[path])

    def _link(self, name: str, last: dict[str, Any]) -> Path:
        """Give the files of the last checkpoint, of these counters, a second name."""
        folder = self.out / KEPT / name
        folder.parent.mkdir(exist_ok=True)
        with replacing(folder) as temporary:
            folders = [MODEL, *([f"{SHARDS}/{last['shards']}"] if last.get("shards") else [])]
            for each in folders:
                shutil.copytree(self.out / each, temporary / each, copy_function=_link_or_copy)
            for file in (STATE, SETTINGS):
                if (self.out / file).is_file():
                    _link_or_copy(self.out / file, temporary / file)
        return folder


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def read_state(
    path: Path, device: torch.device, parameters: list[torch.nn.Parameter]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The counters and the tensors of a state, those of many processes put together for these.

    Raises:
        TrainingError: the parts of many processes cannot be read.
    """
    with safe_open(path, framework="pt", device=str(device)) as file:
        progress = json.loads(file.metadata()["progress"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if name := progress.get("shards"):
        tensors |= read_shards(path.parent / SHARDS / name, parameters)
    return progress, tensors
