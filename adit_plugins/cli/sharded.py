"""`adit generate --shard-size`: a folder of files, made by many workers or machines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.progress import progress

if TYPE_CHECKING:
    from adit_plugins.generation.shards import ShardedGeneration


def is_wanted(ctx: click.Context) -> bool:
    """Whether the options ask for a folder of shards.

    Raises:
        UsageError: an option does not go with the others.
    """

    def given(name: str) -> bool:
        return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE

    if ctx.params["shard_size"] is None:
        for name in ("shard", "executor"):
            if given(name):
                raise click.UsageError(f"--{name} is of files: add --shard-size N.")
        return False
    if given("valid_by"):
        raise click.UsageError(
            "--valid-by asks for more than --valid-only does of files; leave out --valid-by or "
            "--shard-size. `adit discover FOLDER` checks molecules with PoseBusters, too."
        )
    for name in ("ids", "until", "unique"):
        if given(name):
            raise click.UsageError(
                f"--{name} looks at all samples, and files are made one by one; leave out --{name}"
                " or --shard-size. `adit discover FOLDER` looks for duplicates."
            )
    return True


def generate(ctx: click.Context, recipe: dict[str, Any]) -> None:
    """Make what is missing in the folder; Ctrl-C keeps whole files."""
    from adit_plugins import registry
    from adit_plugins.campaign.executors import GROUP
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.recipe import check_device
    from adit_plugins.generation.shards import ShardedGeneration

    params = ctx.params
    registry.load(GROUP, params["executor"].partition(":")[0])  # an unknown one is found now
    check_device(recipe["device"])
    generator = ADiTGenerator(kind=params["kind"], **recipe)
    plan = ShardedGeneration.open(
        Path(params["out"]),
        generator,
        params["num"],
        params["shard_size"],
        params["valid_only"],
        f".{params['form'] or 'extxyz'}",
    )
    part = params["shard"] or (0, 1)
    counts = _run(plan, params["executor"], params["workers"], part)
    if counts is None:
        made = sum(shard.record.is_file() for shard in plan.shards(part))
        click.echo(
            f"Interrupted: {made} of {len(list(plan.shards(part)))} files are in {plan.folder}/; "
            "the same command goes on.",
            err=True,
        )
        ctx.exit(130)
    left = {why: n for why, n in counts.items() if why not in ("made", "written")}
    thrown = ", ".join(f"{n} {why}" for why, n in left.items()) or "nothing"
    where = "" if part == (0, 1) else f", part {part[0]}/{part[1]}"
    click.echo(
        f"{counts['written']} samples in {plan.folder}/{where} of {counts['made']} made; "
        f"thrown away: {thrown}. One file: adit merge {plan.folder} --out FILE."
    )


def _run(
    plan: ShardedGeneration, name: str, workers: int | None, part: tuple[int, int]
) -> Counter[str] | None:
    """Return the counts; None after Ctrl-C."""
    from adit_plugins import processes
    from adit_plugins.campaign.executors import make_executor
    from adit_plugins.generation.parallel import LONGEST

    if workers is None and name == "processes":
        on_gpu = plan.generator.model.device.type != "cpu"
        cores = max(1, len(processes.visible_devices())) if on_gpu else processes.available_cores()
        workers = min(cores, plan.num_shards)
    executor = make_executor(name, workers, LONGEST)
    interrupted = True
    try:
        with progress() as report:
            counts = plan.run(
                executor, part, lambda done, total: report(f"{plan.generator.kind}s", done, total)
            )
        interrupted = False
        return counts
    except KeyboardInterrupt:
        return None
    finally:
        executor.shutdown(cancel_futures=interrupted)
