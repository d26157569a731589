"""`adit discover`: generate, screen, relax, rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins import registry
from adit_plugins.campaign.folders import check_folder, check_input, remove_campaign, shard_folder
from adit_plugins.cli.effects import OPINION, check_discover, check_kinds, check_resume, given
from adit_plugins.cli.finishing import run, why_nothing_is_relaxed
from adit_plugins.cli.inputs import check_there, say_constraints
from adit_plugins.cli.options import (
    KINDS,
    Shard,
    fmax_option,
    hull_option,
    sampling_options,
)
from adit_plugins.relax.limits import (
    CAMPAIGN_STEPS,
    CONFIRM_LIMIT,
    CONFIRM_STEPS,
    PREFILTER_STEPS,
    TIME_LIMIT_SECONDS,
)
from adit_plugins.validity.oxidation import NEUTRALITY_RULES

if TYPE_CHECKING:
    from adit_plugins.campaign import GeneratorSource, Settings
    from adit_plugins.campaign.sources import Source

DEFAULT_NUM = 64  # of each kind
UNTIL_NUM = 1000  # crystals at most, where --until says when to stop
MINUTES_NUM = 10_000  # where --minutes says so
AT_ONCE = 32  # samples, where it is not known how many are wanted


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--num",
    type=click.IntRange(min=1),
    help="Samples of each kind, or the first structures of FILE. [default: 64, or all of FILE]",
)
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind. [default: both]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in DIR.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with the campaign in DIR, with its settings.",
)
@click.option("--relaxer", default="chgnet", show_default=True, help="Potential; see adit doctor.")
@click.option("--no-relax", is_flag=True, help="Only generate and check.")
@fmax_option
@click.option(
    "--max-steps",
    type=click.IntRange(min=0),
    default=CAMPAIGN_STEPS,
    show_default=True,
    help="Relaxation steps a crystal, fewer than elsewhere as most are only sorted out; what "
    "has not converged by then is marked.",
)
@click.option("--prefilter", metavar="NAME", help="A cheaper potential that relaxes first.")
@click.option(
    "--prefilter-steps", type=click.IntRange(min=0), default=PREFILTER_STEPS, show_default=True
)
@click.option(
    "--prefilter-limit",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="eV/atom above the hull; what is higher after the pre-filter, for it and for the relaxer "
    "alike, is not relaxed again.",
)
@click.option(
    "--confirm",
    metavar="NAME",
    help="Another potential that judges the candidates at the end, from where the relaxer left "
    "them; both energies stand in the table. E.g. sevennet:l3i5 (adit env create sevennet).",
)
@click.option(
    "--confirm-steps", type=click.IntRange(min=0), default=CONFIRM_STEPS, show_default=True
)
@click.option(
    "--confirm-limit",
    type=float,
    default=CONFIRM_LIMIT,
    show_default=True,
    help="eV/atom above the hull by the relaxer; --confirm is not asked about what lies higher.",
)
@hull_option
@click.option(
    "--max-hull",
    type=float,
    metavar="EV",
    help="Rank only what lies below this distance from the hull, eV/atom. [default: all]",
)
@click.option(
    "--until",
    type=click.IntRange(min=1),
    metavar="N",
    help="Go on until N candidates within --max-hull are found that are no known structure, or "
    "--num structures are used up. [default number with --until: 1000; --max-hull: 0.1]",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="End after so long, with what is relaxed by then ranked; --resume goes on. "
    "[default number with --minutes: as many crystals as fit]",
)
@click.option(
    "--neutral-by",
    type=click.Choice(NEUTRALITY_RULES),
    help="Rank only what this rule, or one before it, finds charge neutral: SMACT's, its "
    "mixed-valence rule, pymatgen's guess. [default: all, and the table names the rule]",
)
@click.option("--shard", type=Shard(), help="Only part I of N, for one of N machines; adit merge.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@click.option(
    "--executor",
    default="processes",
    show_default=True,
    help="serial, processes, parsl, or parsl:FILE.py with a Parsl config.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(min=1),
    help="Crystals sent to a worker at once. [default: 8, or the batch that the potential wants]",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT_SECONDS,
    show_default=True,
    help="Seconds a crystal, whatever the potential does; not with --workers 0.",
)
@sampling_options
@click.pass_context
def discover(
    ctx: click.Context,
    file: Path | None,
    num: int | None,
    kind: str | None,
    out: Path,
    overwrite: bool,
    resume: Path | None,
    relaxer: str,
    no_relax: bool,
    fmax: float,
    max_steps: int,
    prefilter: str | None,
    prefilter_steps: int,
    prefilter_limit: float,
    confirm: str | None,
    confirm_steps: int,
    confirm_limit: float,
    hull: str,
    max_hull: float | None,
    until: int | None,
    minutes: float | None,
    neutral_by: str | None,
    shard: tuple[int, int] | None,
    workers: int | None,
    executor: str,
    chunk_size: int | None,
    time_limit: float,
    **recipe: Any,
) -> None:
    """Generate crystals and molecules, check, relax and rank them; everything goes to DIR.

    With FILE, any file or folder of structures, its structures are taken instead of fresh ones.
    Ctrl-C keeps what was finished, and so does a crash: --resume DIR goes on from there.
    """
    from adit_plugins.campaign import Campaign, Resources, Settings
    from adit_plugins.campaign.campaign import settled
    from adit_plugins.campaign.executors import GROUP

    means = Resources(executor, workers, chunk_size, time_limit=time_limit, minutes=minutes)
    if resume is not None:
        check_resume(ctx)
        options = {"relaxer": relaxer, "prefilter": prefilter, "confirm": confirm}
        named = [value for name, value in options.items() if value and given(ctx, [name])]
        opinion = {name: ctx.params[name] for name in OPINION if given(ctx, [name])}
        check_relaxer(opinion.get("confirm"))
        own = hull if given(ctx, ["hull"]) else None
        campaign = Campaign.open(resume, None, means, named, opinion, own)
    else:
        check_discover(ctx, recipe)
        if until is not None:
            from adit_plugins.metrics.stability import METASTABLE

            max_hull = METASTABLE if max_hull is None else max_hull
        if file is None and (until is not None or minutes is not None):  # its end is not known
            kind = kind or "crystal"
            num = num or (MINUTES_NUM if until is None else UNTIL_NUM)
            recipe["batch_size"] = recipe["batch_size"] or AT_ONCE
            recipe["workers"] = 0  # processes would sample far ahead, and keep relaxers waiting
            means = replace(means, block_size=AT_ONCE)
        settings = Settings(
            None if no_relax else relaxer, fmax, max_steps,
            prefilter, prefilter_steps, prefilter_limit, neutral_by, max_hull, until,
            confirm, confirm_steps, confirm_limit, hull,
        )  # fmt: skip
        check_there(file)
        registry.load(GROUP, executor.partition(":")[0])  # an unknown one is found now
        check_relaxer(prefilter)
        check_relaxer(settings.relaxer)
        check_relaxer(settings.confirm)
        settings = settled(settings)  # a hull that cannot be read is found before any sample
        folder = shard_folder(out, shard)
        check_folder(folder, out, overwrite)
        check_input(file, folder)
        source = make_source(file, num, (kind,) if kind else KINDS, recipe)
        if file is not None:
            check_kinds(ctx, source.kinds["crystal"])  # type: ignore[attr-defined]
        if overwrite:  # what is there goes only when the new campaign can begin
            load_potentials(settings)
            remove_campaign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        campaign = Campaign.create(folder, source, settings, means, shard or (0, 1))
    with campaign:
        run(campaign)
        reason = why_nothing_is_relaxed(campaign.store)
    if campaign.interrupted:
        ctx.exit(130)
    if reason:
        click.echo(f"No crystal could be relaxed: {reason}", err=True)
        ctx.exit(1)  # for a script: there is no result


def make_source(
    file: Path | None, num: int | None, kinds: tuple[str, ...], recipe: dict[str, Any]
) -> Source:
    """The structures of a file, or one generator a kind with its weights loaded.

    Raises:
        ValueError: unreadable file; unknown device, missing or damaged weights, an impossible
            setting.
    """
    from adit_plugins.campaign import FileSource

    if file is not None:
        source = FileSource(file, num)
        if source.num_unreadable:
            total = len(source.parts[0])
            click.echo(
                f"{source.num_unreadable} of {total} could not be read, and count as invalid:"
            )
            click.echo("\n".join(f"  {each}" for each in source.unreadable))
            if source.num_unreadable > len(source.unreadable):
                click.echo("  ... all are in candidates.json, with `problem`")
        held = source.num_constrained
        say_constraints(["dropped"] * held + [""] * (len(source.parts[0]) - held))
        return source
    return make_generators(kinds, num or DEFAULT_NUM, recipe)


def make_generators(kinds: tuple[str, ...], num: int, recipe: dict[str, Any]) -> GeneratorSource:
    """One generator a kind; missing or damaged weights are found before anything is touched.

    Raises:
        ValueError: unknown device, missing or damaged weights, an impossible setting.
    """
    from adit_plugins.campaign import GeneratorSource
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.recipe import check_device

    check_device(recipe["device"])
    generators = [ADiTGenerator(kind=kind, **recipe) for kind in kinds]  # type: ignore[arg-type]
    for generator in generators:
        generator.check()
    return GeneratorSource(generators, num)


def load_potentials(settings: Settings) -> None:
    """Find out whether a campaign's potentials can be loaded.

    Raises:
        RelaxerError: one cannot; the message says why.
    """
    from adit_plugins.relax.run import load_relaxer

    for name in (settings.prefilter, settings.relaxer, settings.confirm):
        if name is not None:
            load_relaxer(name)


def check_relaxer(name: str | None) -> None:
    """Find an unknown potential, or one whose package is missing, before anything is generated.

    Raises:
        UnknownPluginError: there is no relaxer of that name.
        MissingExtraError: its package is not installed.
    """
    from adit_plugins.relax.run import find_relaxer

    if name is not None:
        find_relaxer(name)
