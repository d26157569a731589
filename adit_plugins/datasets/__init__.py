"""Data sets to prepared arrays: QM9, MP-20 and users' own crystals (group `adit.datasets`).

Raw data are never shipped: they come from a package, a download with a checksum, or the user.

Add a data set as a function that returns `adit_model.data.PreparedData`, here or in a package of
your own, and name it under the entry point `adit.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adit_plugins import registry
from adit_plugins.datasets.errors import DatasetError

if TYPE_CHECKING:
    from adit_model.data import PreparedData

__all__ = ["DatasetError", "prepare"]


def prepare(
    names: list[str], out: Path, source: Path | None = None, labels: Sequence[str] = ()
) -> list[Path]:
    """Write `NAME.safetensors` for each data set into `out`.

    Args:
        names: data sets by entry point: `qm9`, `mp20`, `crystals`, or a stranger's.
        out: folder for the prepared files; made if missing.
        source: the user's file or folder instead of a download (one name only).
        labels: columns of the source that a network can be trained on as conditions.

    Raises:
        DatasetError: as its docstring says; nothing is left half-written.
        UnknownPluginError: there is no such data set.
    """
    if source is not None and len(names) != 1:
        raise DatasetError(f"--source serves one data set, got {len(names)}: {names}")
    loaders: list[Callable[..., PreparedData]] = [
        registry.load("adit.datasets", name) for name in names
    ]
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"Cannot write to {out}: {error}") from error
    written: list[Path] = []
    try:
        for name, loader in zip(names, loaders, strict=True):
            options = {"labels": labels} if labels else {}
            try:
                data = loader(source, **options) if source is not None else loader(**options)
            except TypeError as error:
                if labels and "labels" in str(error):
                    raise DatasetError(f"The data set {name!r} takes no --label.") from error
                raise
            path = out / f"{name}.safetensors"
            data.save(path)
            written.append(path)
    finally:
        if made and not written:
            with suppress(OSError):
                out.rmdir()
    return written
