"""The folder of a campaign: whether it may be written, and what goes before a new one."""

from __future__ import annotations

from pathlib import Path


def shard_folder(out: Path, shard: tuple[int, int] | None) -> Path:
    """Return the folder of a shard: each has its own store, so that none waits for another."""
    return out if shard is None else out / f"shard-{shard[0]}-of-{shard[1]}"


def check_folder(folder: Path, out: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds anything but results to replace.

    Args:
        folder: of the campaign.
        out: the same, or that of all shards.
        overwrite: results may be replaced.

    Raises:
        ValueError: see above; the message says what to do.
    """
    from adit_plugins.campaign.files import is_results
    from adit_plugins.campaign.ownership import LOCK
    from adit_plugins.campaign.store import has_store
    from adit_plugins.structures.writers import check_output

    if folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        if not (is_results(folder) or has_store(folder)):
            raise ValueError(
                f"{folder} is not empty and holds no results of adit discover. Choose another "
                "--out."
            )
        if not overwrite:
            raise ValueError(
                f"{folder} holds results. Go on with --resume {folder}, replace them with "
                "--overwrite, or choose another --out."
            )
    for place in (out, folder):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file. Choose another --out.")
    # As a file name in the folder, or in its parent where the folder has yet to be made.
    check_output((out if out.is_dir() else out.parent) / "crystals.extxyz")


def check_input(file: Path | None, folder: Path) -> None:
    """Refuse to read structures from where results are written.

    Raises:
        ValueError: the file is the results' folder, or in it.
    """
    if file is not None and file.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{file} is in {folder}, where results go. Choose another --out.")


def remove_campaign(folder: Path) -> None:
    """Remove the store and the files of an earlier campaign.

    Raises:
        StoreError: a driver is at work there.
    """
    from adit_plugins.campaign.files import remove_results
    from adit_plugins.campaign.store import remove_store

    remove_store(folder)
    remove_results(folder)
