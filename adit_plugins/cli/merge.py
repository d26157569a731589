"""`adit merge`: the shards of a campaign as one campaign."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Where the whole campaign goes. [default: FOLDER] Of samples: the file.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier merge.")
def merge(folder: Path, more: tuple[Path, ...], out: Path | None, overwrite: bool) -> None:
    """Merge the shards in FOLDER, or the shards FOLDER MORE... with --out.

    Shards are what `adit discover --shard I/N --out FOLDER` makes on N machines. Duplicates are
    looked for again across all of them; the result is that of one machine. A FOLDER of samples
    (`adit generate --shard-size`) becomes the one file --out, in the order of the samples.
    """
    from adit_plugins.generation.shards import holds

    if holds(folder):
        _merge_samples(folder, more, out)
        return
    from rich.console import Console

    from adit_plugins.campaign.files import write_files
    from adit_plugins.campaign.folders import remove_campaign
    from adit_plugins.campaign.merge import find_shards
    from adit_plugins.campaign.merge import merge as merge_shards
    from adit_plugins.campaign.report import print_tables
    from adit_plugins.campaign.store import has_store
    from adit_plugins.report import write_campaign_report

    if more and out is None:
        raise click.UsageError("several folders need --out DIR for the whole campaign.")
    shards = [folder, *more] if more else find_shards(folder)
    target = out or folder
    if has_store(target):
        if target in shards or not overwrite:
            raise ValueError(f"{target} holds results. Pass --overwrite, or choose another --out.")
        remove_campaign(target)
    target.mkdir(exist_ok=True)
    with merge_shards(shards, target) as store:
        waiting = store.num_waiting()
        write_files(store)
        write_campaign_report(store)
        print_tables(store, Console())
        click.echo(f"{len(store)} structures of {len(shards)} shards in {target}/.")
        if waiting:
            click.echo(f"{waiting} are left to relax: adit discover --resume {target}", err=True)


def _merge_samples(folder: Path, more: tuple[Path, ...], out: Path | None) -> None:
    """Write the samples of all shards into one file, a few at a time in memory."""
    from adit_plugins.generation.shards import read_shards
    from adit_plugins.structures.writers import write_samples

    if more or out is None:
        raise click.UsageError(f"{folder} holds samples: adit merge {folder} --out FILE")
    report = write_samples(read_shards(folder), out)
    left = f"; {len(report.skipped)} do not fit into this format" if report.skipped else ""
    click.echo(f"{report.written} samples in {out}{left}.")
