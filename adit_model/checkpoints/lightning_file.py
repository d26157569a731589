"""Reads tensors from a PyTorch Lightning checkpoint without running anything that is in it.

The file is a zip: one pickle (see `adit_model.checkpoints.restricted_pickle`) and one member a
storage. The bytes of a tensor are read only when somebody asks for it, and nothing that the file
claims about sizes is believed before it is compared with the length of the file itself.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adit_model.checkpoints.folder import CheckpointError
from adit_model.checkpoints.restricted_pickle import StoredTensor, rebuild

MAX_PROGRAM_BYTES = 32 * 2**20  # the published file's program has well under a megabyte
MAX_DIRECTORY_BYTES = 32 * 2**20  # of the zip's list of members


class LightningFile:
    """An open checkpoint file.

    Attributes:
        content: the pickled dictionary, with `StoredTensor` for tensors and `INERT` for whatever
            is neither plain nor a tensor.

    Raises:
        CheckpointError: the file is no such checkpoint, is damaged, or is built to do harm.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = _open(path)
        try:
            self._prefix = self._find_program()
            content = rebuild(self._program())
        except CheckpointError:
            self.close()
            raise
        except (ValueError, LookupError, TypeError, RecursionError, UnicodeError) as error:
            self.close()
            raise CheckpointError(
                f"{path} holds a damaged pickle ({type(error).__name__}: {error}). Get it again."
            ) from error
        if not isinstance(content, dict):
            self.close()
            raise CheckpointError(f"{path} holds no dictionary, so it is no Lightning checkpoint.")
        self.content: dict[Any, Any] = content

    def __enter__(self) -> LightningFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def read(self, tensor: StoredTensor, name: str) -> Tensor:
        """Return a tensor's values in float32, in memory of their own.

        Raises:
            CheckpointError: it is not floating point, does not fit its storage, or is damaged.
        """
        if not tensor.dtype.is_floating_point:
            raise CheckpointError(f"{self.path}: {name} holds {tensor.dtype}, not floats.")
        return self.read_stored(tensor, name).to(torch.float32)

    def read_stored(self, tensor: StoredTensor, name: str) -> Tensor:
        """Return a tensor's values as they are stored, in memory of their own.

        Raises:
            CheckpointError: it does not fit its storage, or is damaged.
        """
        last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))
        fits = tensor.offset + last < tensor.num_stored and tensor.numel <= tensor.num_stored
        if not fits or min((tensor.offset, *tensor.shape, *tensor.stride)) < 0:
            raise CheckpointError(
                f"{self.path}: {name} with shape {tensor.shape} does not fit into its "
                f"{tensor.num_stored} stored numbers."
            )
        data = self._bytes(f"data/{tensor.key}", tensor.num_stored * tensor.dtype.itemsize, name)
        flat = torch.frombuffer(bytearray(data), dtype=tensor.dtype)
        return flat.as_strided(tensor.shape, tensor.stride, tensor.offset).contiguous()

    def _find_program(self) -> str:
        programs = [n for n in self._zip.namelist() if n.endswith("/data.pkl")]
        if len(programs) != 1:
            raise CheckpointError(
                f"{self.path} is a zip without a PyTorch checkpoint in it "
                f"(it has {len(programs)} files data.pkl, one is needed)."
            )
        return programs[0].removesuffix("data.pkl")

    def _program(self) -> bytes:
        for name in self._zip.namelist():
            if name == f"{self._prefix}byteorder" and self._bytes("byteorder", None) != b"little":
                raise CheckpointError(f"{self.path} was written on a big-endian machine.")
        size = self._zip.getinfo(f"{self._prefix}data.pkl").file_size
        if size > MAX_PROGRAM_BYTES:
            raise CheckpointError(
                f"{self.path}: its pickle has {size} bytes, more than the {MAX_PROGRAM_BYTES} "
                "that any checkpoint of this kind needs."
            )
        return self._bytes("data.pkl", None)

    def _bytes(self, member: str, expected: int | None, name: str = "") -> bytes:
        """A member's bytes, never more than the file itself is long."""
        what = f"{self.path}: {name or member}"
        try:
            info = self._zip.getinfo(self._prefix + member)
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise CheckpointError(
                    f"{what} is compressed or encrypted; PyTorch writes neither. Get the file "
                    "again from its source."
                )
            if info.file_size > self.path.stat().st_size:
                raise CheckpointError(f"{what} claims more bytes than the file has.")
            if expected is not None and info.file_size != expected:
                raise CheckpointError(
                    f"{what} has {info.file_size} bytes instead of {expected}; get the file again."
                )
            return self._zip.read(info)
        except KeyError as error:
            raise CheckpointError(f"{what} is missing from the file; get it again.") from error
        except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            raise CheckpointError(f"{what} is damaged ({error}); get the file again.") from error


def _open(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(max(0, path.stat().st_size - 65557))  # the longest end record
            tail = file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`.")
    if not head.startswith(b"PK"):
        raise CheckpointError(
            f"{path} is no PyTorch Lightning checkpoint (a zip file). Known forms: a .ckpt file "
            "of the published model, or a folder with config.json."
        )
    end = tail.rfind(b"PK\x05\x06")
    # Above 4 GiB this field is all ones and the real one is elsewhere; the weights are smaller.
    directory = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
    if directory != 0xFFFFFFFF and directory > MAX_DIRECTORY_BYTES:
        raise CheckpointError(f"{path} lists {directory} bytes of members: no checkpoint does.")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is cut short or damaged ({error}); get it again.") from error
