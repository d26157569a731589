"""Data sets to prepared arrays: published ones and users' own files (group `adit.datasets`).

Raw data are never shipped: they come from a package, a download with a checksum, or the user.

Add a data set as a function that returns `adit_model.data.PreparedData`, here or in a package of
your own, and name it under the entry point `adit.datasets`. Crystals larger than the memory are a
`streams.CrystalStream`, of a function that is decorated with `streams.Streamed`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_plugins import registry
from adit_plugins.datasets.errors import DatasetError

if TYPE_CHECKING:
    from adit_model.data import PreparedData
    from adit_plugins.datasets.streams import CrystalStream

__all__ = ["DatasetError", "prepare"]


def prepare(
    names: list[str],
    out: Path,
    source: Path | None = None,
    labels: Sequence[str] = (),
    shard_size: int | None = None,
    report: Callable[[str], None] = lambda line: None,
    limits: Mapping[str, float] | None = None,
    distinct_splits: bool = False,
) -> list[Path]:
    """Write `NAME.safetensors` for each data set into `out`, or a folder `NAME` of shards.

    Args:
        names: data sets by entry point: `qm9`, `mp20`, `crystals`, or a stranger's.
        out: folder for the prepared files; made if missing.
        source: the user's file or folder instead of a download (one name only).
        labels: columns of the source that a network can be trained on as conditions.
        shard_size: rows of the source a shard; then no more than one is in memory at a time, and
            the same call goes on where an earlier one was ended. Sets of crystals only.
        report: called with a line for each shard, and what was left out and why.
        limits: highest `num_atoms`, `energy_above_hull` (eV/atom) or other columns of crystals, in
            place of a set's own; of `molecules` and `geom_drugs` `num_atoms` alone.
        distinct_splits: leave out the crystals of `overlap.overlapping`; not of shards.

    Raises:
        DatasetError: as its docstring says; nothing is left half-written.
        UnknownPluginError: there is no such data set.
    """
    if distinct_splits and shard_size is not None:
        raise DatasetError("--distinct-splits compares what is in memory; leave out --shard-size.")
    if source is not None and len(names) != 1:
        raise DatasetError(f"--source serves one data set, got {len(names)}: {names}")
    loaders: list[Callable[..., Any]] = [registry.load("adit.datasets", name) for name in names]
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"Cannot write to {out}: {error}") from error
    written: list[Path] = []
    try:
        for name, loader in zip(names, loaders, strict=True):
            if shard_size is None:
                path = out / f"{name}.safetensors"
                data = _prepared(name, loader, source, labels, limits or {})
                (_distinct(data, report) if distinct_splits else data).save(path)
            else:
                stream = _stream(name, loader, source, labels, limits or {})
                path = _in_shards(stream, out / name, source, shard_size, report)
            written.append(path)
    finally:
        if made and not written:
            with suppress(OSError):
                out.rmdir()
    return written


def _called(
    name: str, loader: Callable[..., Any], source: Path | None, labels: Sequence[str]
) -> Any:
    """Give a data set what it was asked for with.

    Raises:
        DatasetError: it takes no labels.
    """
    options = {"labels": labels} if labels else {}
    try:
        return loader(source, **options) if source is not None else loader(**options)
    except TypeError as error:
        if labels and "labels" in str(error):
            raise DatasetError(f"The data set {name!r} takes no --label.") from error
        raise


def _prepared(
    name: str,
    loader: Callable[..., Any],
    source: Path | None,
    labels: Sequence[str],
    limits: Mapping[str, float],
) -> Any:
    if not limits:
        return _called(name, loader, source, labels)
    from adit_plugins.datasets.streams import Streamed, collect

    sized = "max_num_atoms" in inspect.signature(loader).parameters
    if set(limits) == {"num_atoms"} and sized and not isinstance(loader, Streamed):
        bounded = partial(loader, max_num_atoms=int(limits["num_atoms"]))
        return _called(name, bounded, source, labels)

    return collect(_stream(name, loader, source, labels, limits))


def _distinct(data: PreparedData, report: Callable[[str], None]) -> PreparedData:
    """The data without what is in two splits."""
    from adit_plugins.datasets.overlap import overlapping, without

    equal = overlapping(data)
    report(
        f"{data.name}: {int(equal.sum())} of {len(equal)} crystals equal one that is held out of "
        "training and are left out"
    )
    return without(data, equal)


def _stream(
    name: str,
    loader: Callable[..., Any],
    source: Path | None,
    labels: Sequence[str],
    limits: Mapping[str, float],
) -> CrystalStream:
    """The crystals of a data set, one after the other.

    Raises:
        DatasetError: it cannot be read so.
    """
    from adit_plugins.datasets.streams import Streamed

    if not isinstance(loader, Streamed):
        option = "--max" if limits else "--shard-size"
        raise DatasetError(
            f"The data set {name!r} is one file, no stream of crystals; leave out {option}."
        )
    stream: CrystalStream = _called(name, loader.stream, source, labels)
    return stream.limited(limits)


def _in_shards(
    stream: CrystalStream,
    folder: Path,
    source: Path | None,
    shard_size: int,
    report: Callable[[str], None],
) -> Path:
    from adit_plugins.datasets.shards import prepare_shards

    summary = prepare_shards(
        stream,
        source,
        folder,
        shard_size,
        lambda path, record: report(f"{path}: {record['kept']} of {record['rows']} rows"),
    )
    report(f"{folder}: {summary.text()}")
    return folder
