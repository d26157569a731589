"""Checkpoints on disk: config.json and safetensors shards with checksums; nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from adit_model.config import ADiTConfig
from adit_model.outputs import replacing

SHARD_BYTES = 16 * 1000 * 1000
CONFIG = "config.json"
SHARDS = "shards"  # of config.json: sizes and checksums by name
INDEX = "index.json"  # the shards of an older folder
_SHARD = re.compile(r"model-\d{5}(-[0-9a-f]{12})?\.safetensors")
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
DEFAULT_NAME = "adit-joint"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit its configuration."""


def resolve(name_or_path: str | Path | None) -> Path:
    """The folder of a checkpoint: None for the shipped release, a shipped name, or a path.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    known = sorted(p.parent.name for p in WEIGHTS_FOLDER.glob(f"*/{CONFIG}"))
    name = DEFAULT_NAME if name_or_path is None else str(name_or_path)
    for folder in (WEIGHTS_FOLDER / name, Path(name)):
        if name and (folder / CONFIG).is_file():
            return folder
    raise CheckpointError(
        f"No checkpoint {name!r}. Known: {', '.join(known) or 'none shipped'}. "
        f"Or give a folder with {CONFIG}, a .ckpt file of the published model, or "
        "hf:OWNER/REPOSITORY."
    )


def save(folder: Path, config: ADiTConfig, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint folder; other files in it, such as a model card, stay.

    Shards have their checksum in their name, and config.json lists them: once it is replaced, the
    new checkpoint counts, and the older shards go. So there is a whole one at any time, whenever
    the process is killed.

    Args:
        folder: where to write.
        config: the configuration.
        tensors: name to tensor; saved in the precision they have.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as temporary:
            temporary.mkdir()
            save(temporary, config, tensors)
        return
    shards = {}
    for i, shard in enumerate(_split(tensors)):
        data = serialize(shard)
        digest = hashlib.sha256(data).hexdigest()
        name = f"model-{i:05d}-{digest[:12]}.safetensors"
        with replacing(folder / name) as temporary:
            temporary.write_bytes(data)
        shards[name] = {"sha256": digest, "bytes": len(data)}
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(json.loads(config.to_json()) | {SHARDS: shards}, indent=2))
    for path in folder.iterdir():  # other programs have such names, too: model-00001-of-00002
        if _SHARD.fullmatch(path.name) and path.name not in shards:
            path.unlink()
    if SHARDS in _read_json(folder / INDEX):
        (folder / INDEX).unlink()


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of ours, and not another program's config.json."""
    return any(SHARDS in _read_json(folder / name) for name in (CONFIG, INDEX))


def _read_json(path: Path) -> dict[str, Any]:
    """A dictionary in a file; an empty one if there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _split(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        num_bytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + num_bytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += num_bytes
    return shards


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load(folder: Path) -> tuple[ADiTConfig, dict[str, Tensor], str]:
    """Read and verify a checkpoint folder.

    Returns:
        The configuration, float32 tensors by name, and 12 hexadecimal digits that identify the
        weights.

    Raises:
        CheckpointError: a file is missing, truncated, changed, or not what it should be.
    """
    try:
        content = json.loads((folder / CONFIG).read_text())
        if SHARDS not in content:
            content |= json.loads((folder / INDEX).read_text())
        shards = content.pop(SHARDS)
        config = ADiTConfig.from_json(json.dumps(content))
        expected = {str(name): str(entry["sha256"]) for name, entry in shards.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} is no readable checkpoint: {error}") from error
    tensors: dict[str, Tensor] = {}
    for name, digest in expected.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing. Install or copy the checkpoint again.")
        if _digest(path) != digest:
            raise CheckpointError(
                f"{path} is damaged: its checksum is not the one that was recorded. "
                "Install or copy the checkpoint again."
            )
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    tensors[key] = file.get_tensor(key).to(torch.float32)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    identity = hashlib.sha256("".join(sorted(expected.values())).encode()).hexdigest()[:12]
    return config, tensors, identity


def load_into(module: torch.nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy tensors into a module.

    Raises:
        CheckpointError: names or shapes differ; the first few are listed.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    extra = sorted(tensors.keys() - own.keys())
    wrong = [
        f"{k}: {tuple(tensors[k].shape)} for {tuple(own[k].shape)}"
        for k in sorted(own.keys() & tensors.keys())
        if own[k].shape != tensors[k].shape
    ]
    problems = [
        f"{title} {items[:5]}{' ...' if len(items) > 5 else ''}"
        for title, items in (("missing", missing), ("unknown", extra), ("wrong shape", wrong))
        if items
    ]
    if problems:
        raise CheckpointError(
            f"{origin}: the weights do not fit the configuration: {'; '.join(problems)}"
        )
    module.load_state_dict(tensors, assign=True)
