"""Every way to name a checkpoint: a shipped name, a folder, a published file, a hub repository."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

from torch import Tensor

from adit_model.checkpoints import folder as checkpoint
from adit_model.checkpoints import published
from adit_model.checkpoints.folder import CheckpointError
from adit_model.config import ADiTConfig

HUB_PREFIX = "hf:"
HUB_FILE = "ckpts/ldm.ckpt"  # both stages of the published model
HUB_NAME = re.compile(r"hf:(?P<repo>[^/@:\s]+/[^/@:\s]+)(@(?P<revision>[^:\s]+))?(:(?P<file>\S+))?")
_announced: set[str] = set()


class CheckpointNotice(UserWarning):
    """Something about a checkpoint that its user must know: its licence, unknown names."""


def read(
    name_or_path: str | Path | None, num_heads: int | tuple[int, int] | None = None
) -> tuple[ADiTConfig, dict[str, Tensor], str]:
    """Configuration, float32 weights and identity of a checkpoint.

    Args:
        name_or_path: None for the shipped release, a shipped name, a folder of ours, a published
            `.ckpt` file, or `hf:OWNER/REPOSITORY[@REVISION][:FILE]` on the Hugging Face hub.
        num_heads: for published files of unusual sizes, see `published.load`.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    text = "" if name_or_path is None else str(name_or_path)
    is_hub = text.startswith(HUB_PREFIX)
    if not is_hub and not (text and Path(text).is_file()):
        if num_heads is not None:
            raise CheckpointError("num_heads is for published .ckpt files; others record theirs.")
        config, tensors, identity = checkpoint.load(checkpoint.resolve(name_or_path))
    else:
        path, source, name = _download(text) if is_hub else _local(Path(text))
        config, tensors, identity, ignored = published.load(path, name, num_heads)
        licence = f"{published.LICENCE} (the published ADiT weights)"
        provenance = {"licence": licence, "source": source, "source_hash": identity}
        config = dataclasses.replace(config, provenance=provenance)
        if ignored:
            _announce(f"{source}: names that belong to no network are ignored: {_few(ignored)}")
    if published.LICENCE in str(config.provenance.get("licence")):
        _announce(
            f"The published ADiT weights are licensed {published.LICENCE}: attribution, no "
            "commercial use. Every sample's provenance says so."
        )
    return config, tensors, identity


def _announce(text: str) -> None:
    """Warn once a process."""
    if text not in _announced:
        _announced.add(text)
        warnings.warn(text, CheckpointNotice, stacklevel=4)


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _local(path: Path) -> tuple[Path, str, str]:
    """Path, source and model name; a name has no spaces, as it begins sample ids."""
    return path, path.name, re.sub(r"\s+", "-", path.stem) or "published"


def _download(text: str) -> tuple[Path, str, str]:
    """Fetch one file through huggingface_hub: its cache, progress bar, resume, offline mode."""
    match = HUB_NAME.fullmatch(text)
    if match is None:
        raise CheckpointError(
            f"Cannot read {text!r}. The form is hf:OWNER/REPOSITORY[@REVISION][:FILE], such as "
            f"hf:chaitjo/all-atom-diffusion-transformer; FILE is {HUB_FILE} by default."
        )
    repo, revision, file = match["repo"], match["revision"], match["file"] or HUB_FILE
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f'{text} needs the package huggingface_hub: pip install "adit-plugins[hub]"'
        ) from error
    where = f"{repo}{f' at {revision}' if revision else ''} on the Hugging Face hub"
    try:
        path = Path(hf_hub_download(repo, file, revision=revision))
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{file} of {where} is not in the local cache and cannot be downloaded: no connection, "
            "or HF_HUB_OFFLINE is set. Connect once, or give the path of a .ckpt file."
        ) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"No file {file!r} in {where}. Name one as {text}:FILE.") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"No revision {revision!r} of {repo} on the hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"No repository {repo!r} on the Hugging Face hub, or it is private: log in with "
            "`hf auth login`."
        ) from error
    except (OSError, ValueError) as error:  # connection, disk space, or a malformed name
        raise CheckpointError(f"{file} of {where} cannot be downloaded: {error}") from error
    commit = path.parents[file.count("/")].name  # the cache's folder snapshots/COMMIT
    return path, f"hf:{repo}@{commit}:{file}", repo.split("/")[1]
