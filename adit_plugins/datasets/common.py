"""What every data set shares: errors, the splits, downloads with checksums, prepared arrays."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from adit_model.data import PreparedData

SPLITS = ("train", "val", "test")
TIMEOUT = 60.0  # seconds without an answer


class DatasetError(ValueError):
    """A data set is unknown, unreadable, incomplete or of another version."""


def cache() -> Path:
    """Where downloads are kept.

    Raises:
        DatasetError: this user has no home folder.
    """
    try:
        return Path.home() / ".cache" / "adit-plugins"
    except RuntimeError as error:
        raise DatasetError("No home folder to download into: set HOME, or --source.") from error


def split_by_row(row: int) -> int:
    """The split of a row where the source names none: 5 % test and 5 % validation."""
    return {0: 2, 10: 1}.get(row % 20, 0)


def assemble(name: str, kind: str, rows: list[dict[str, Any]], source: str) -> PreparedData:
    """Concatenate rows of `atomic_numbers`, `coords`, `split` (and `cell`) into arrays."""
    import torch

    from adit_model.data import PreparedData

    if not rows:
        raise DatasetError(f"{name}: no structure to prepare from {source}")
    numbers = np.concatenate([np.asarray(r["atomic_numbers"], dtype=np.uint8) for r in rows])
    coords = np.concatenate([np.asarray(r["coords"], dtype=np.float32) for r in rows])
    cell = None
    if kind == "crystal":
        cell = torch.tensor(np.array([r["cell"] for r in rows]), dtype=torch.float32)
    return PreparedData(
        name=name,
        kind=kind,
        atomic_numbers=torch.from_numpy(numbers),
        coords=torch.from_numpy(coords),
        num_atoms=torch.tensor([len(r["atomic_numbers"]) for r in rows], dtype=torch.int32),
        split=torch.tensor([r["split"] for r in rows], dtype=torch.uint8),
        cell=cell,
        source=source,
    )


def download(url: str, path: Path) -> None:
    """Fetch once; record the checksum on first use and compare it later.

    Raises:
        DatasetError: no network, a download that broke off, or the file changed since its first
            use.
    """
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    record = path.with_suffix(".sha256.json")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        try:
            with (
                urlopen(url, timeout=TIMEOUT) as response,  # noqa: S310
                temporary.open("wb") as file,
            ):
                while chunk := response.read(1 << 20):
                    file.write(chunk)
                expected = response.headers.get("Content-Length")
            # Reading in pieces takes a connection that breaks off for the end of the file.
            if expected is not None and temporary.stat().st_size != int(expected):
                raise OSError(f"{temporary.stat().st_size} of {expected} bytes arrived")
            temporary.replace(path)
        except (URLError, HTTPException, OSError) as error:
            raise DatasetError(f"Cannot download {url}: {error}. Or pass --source PATH.") from error
        finally:
            temporary.unlink(missing_ok=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not record.is_file():
        record.write_text(json.dumps({"url": url, "sha256": digest}))
    elif json.loads(record.read_text())["sha256"] != digest:
        raise DatasetError(f"{path} changed since its first use; delete it to download it again.")
