"""What every data set shares: errors, the splits, downloads with checksums, prepared arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.outputs import replacing
from adit_plugins.datasets.errors import DatasetError

if TYPE_CHECKING:
    from adit_model.data import PreparedData

SPLITS = ("train", "val", "test")
TIMEOUT = 60.0  # seconds without an answer


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


def assemble(
    name: str,
    kind: str,
    rows: list[dict[str, Any]],
    source: str,
    units: Mapping[str, str] | None = None,
    wanted: Iterable[str] = (),
) -> PreparedData:
    """Concatenate rows of `atomic_numbers`, `coords`, `split` (and `cell`) into arrays.

    Rows without `coords` are compositions. Rows may have `labels`, numbers by name, whose units
    are told by name; some may be wanted.
    """
    import dataclasses

    from adit_plugins.datasets.labels import described_labels

    labels, conditions = described_labels(kind, rows, units or {}, wanted)
    return dataclasses.replace(
        arrays(name, kind, rows, source), labels=labels, conditions=conditions
    )


def arrays(name: str, kind: str, rows: list[dict[str, Any]], source: str) -> PreparedData:
    """Concatenate rows as `assemble` does, with all labels and nothing said of them.

    Raises:
        DatasetError: there is no row.
    """
    import torch

    from adit_model.data import PreparedData

    if not rows:
        raise DatasetError(f"{name}: no structure to prepare from {source}")
    numbers = np.concatenate([np.asarray(r["atomic_numbers"], dtype=np.uint8) for r in rows])
    coords = cell = None
    if "coords" in rows[0]:
        joined = np.concatenate([np.asarray(r["coords"], dtype=np.float32) for r in rows])
        coords = torch.from_numpy(joined)
    if "cell" in rows[0]:
        cell = torch.tensor(np.array([r["cell"] for r in rows]), dtype=torch.float32)
    names = dict.fromkeys(key for row in rows for key in row.get("labels", {}))
    labels = {
        key: torch.tensor([row["labels"].get(key, np.nan) for row in rows], dtype=torch.float32)
        for key in names
    }
    return PreparedData(
        labels=labels,
        name=name,
        kind=kind,
        atomic_numbers=torch.from_numpy(numbers),
        coords=coords,
        num_atoms=torch.tensor([len(r["atomic_numbers"]) for r in rows], dtype=torch.int32),
        split=torch.tensor([r["split"] for r in rows], dtype=torch.uint8),
        cell=cell,
        source=source,
    )


def download(
    url: str, path: Path, known_hash: str | None = None, otherwise: str = "pass --source PATH"
) -> None:
    """Fetch a file once.

    Args:
        url: where from.
        path: where to.
        known_hash: `sha256:...` or `md5:...` as the source publishes it. Without one, the SHA-256
            of the first download is recorded in a file beside it, and compared from then on.
        otherwise: what can be done where there is no network.

    Raises:
        DatasetError: no network, a download that broke off, or not the known content.
    """
    import pooch

    try:
        pooch.get_logger().setLevel("WARNING")
        downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash, path.name, path.parent, downloader=downloader)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise DatasetError(f"Cannot download {url}: {error} Or {otherwise}.") from error
    if known_hash is not None:
        return
    digest, record = pooch.file_hash(str(path)), path.with_suffix(".sha256.json")
    if not record.is_file():
        with replacing(record) as temporary:
            temporary.write_text(json.dumps({"url": url, "sha256": digest}))
    elif json.loads(record.read_text())["sha256"] != digest:
        raise DatasetError(f"{path} changed since its first use; delete it to download it again.")
