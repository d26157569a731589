"""What both benchmarks of `adit submit` go through: structures, their relaxation, what is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.inputs import say_constraints
from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from ase import Atoms

    from adit_plugins.submissions.shards import RelaxationSettings, ShardJob

NAME = "matbench-discovery"


def initial_structures(file: Path | None) -> tuple[dict[str, Atoms], dict[str, str]]:
    """Return the structures by material id, and why others cannot be read."""
    from adit_plugins import registry
    from adit_plugins.submissions.matbench import read_initial

    if file is not None:
        return read_initial(file)
    found: dict[str, Atoms] = registry.load("adit.benchmarks", NAME)().initial_structures()
    return found, {}


def say_unreadable(unreadable: Mapping[str, str], total: int) -> None:
    if unreadable:
        click.echo(f"{len(unreadable)} of {total} structures cannot be used:")
    for name, reason in unreadable.items():
        click.echo(f"  {name}: {reason}")


def relaxed(
    ctx: click.Context,
    structures: Mapping[str, Atoms],
    out: Path,
    settings: RelaxationSettings,
    shards: int,
    shard: tuple[int, int] | None,
    workers: int | None,
    time_limit: float,
    **_: Any,
) -> dict[str, dict[str, Any]] | None:
    """Run the shards; None if only one was asked for, or the run was interrupted."""
    from adit_plugins.relax.run import find_relaxer
    from adit_plugins.submissions.shards import make_jobs, read_jobs, run_jobs

    find_relaxer(settings.relaxer)
    limits = {"workers": workers, "time_limit": time_limit}
    count = shards if shard is None else shard[1]
    jobs = make_jobs(structures, out / "shards", settings, count, **limits)
    chosen = jobs if shard is None else [jobs[shard[0]]]
    try:
        with progress() as report:
            run_jobs(chosen, on_result=_Counter(chosen, report))
    except KeyboardInterrupt:
        click.echo("Interrupted. Run the same command again: it goes on from there.", err=True)
        ctx.exit(130)
    if shard is not None:
        click.echo(f"{chosen[0].path} is finished. When all are: run again with --shards {count}.")
        return None
    records = read_jobs(jobs)
    say_constraints(record["constraints"] for record in records.values())
    return records


class _Counter:
    """Tells the progress bar of each structure that this run finishes."""

    def __init__(self, jobs: list[ShardJob], report: Any) -> None:
        self.report, self.done = report, 0
        self.total = sum(len(job.structures) for job in jobs)

    def __call__(self, material_id: str) -> None:
        self.done += 1
        self.report("structures relaxed", self.done, self.total)
