"""`adit improve`: train a checkpoint on with what campaigns have found, beside its data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from adit_model.data import PreparedData
    from adit_plugins.improvement import Campaign, Picks
    from adit_plugins.improvement.lineage import Parent

SHARE = 0.1
BEST = 10  # picks that --dry-run shows
PAGE = "docs/improve.md"


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def improve(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Train on with what campaigns have found: `adit improve --help`."""
    args = parser().parse_args(list(arguments) or ["--help"])
    if args.autoencoder:
        raise click.UsageError("--autoencoder begins a denoiser anew; name it by --init.")
    if not 0 < args.share < 1:
        raise click.UsageError(f"--share is {args.share:g}; it must be above 0 and below 1.")
    if args.dry_run:
        from adit_plugins.improvement.known import prepared

        data = prepared(map(Path, args.data)) if args.data else None
        campaigns, _, picks = _picked(args, data)
        _show(campaigns, picks, compared=data is not None)
        return
    missing = [f"--{name}" for name in ("data", "out") if not getattr(args, name)]
    if missing:
        raise click.UsageError(
            f"{' and '.join(missing)} missing: the prepared data that the picks stand beside, and "
            "a folder for the run; --dry-run does without."
        )
    ctx.exit(_run(args))


def parser() -> argparse.ArgumentParser:
    """Own options, and all those of `adit train denoiser`."""
    from adit_model.training.cli import Parser, add_training_options
    from adit_plugins.improvement.reading import MAX_HULL

    p = Parser(
        prog="adit improve",
        description="Take the valid, unique, new crystals near the hull and the strictly valid, "
        "unstrained molecules of campaigns, and train the denoiser that made them on with these "
        "beside its data. The other options are those of adit train denoiser.",
        epilog=f"What is picked, and what it gains: {PAGE}.",
    )
    p.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="of adit discover or adit predict"
    )
    own = p.add_argument_group("the picks")
    own.add_argument(
        "--max-hull",
        type=float,
        default=MAX_HULL,
        metavar="EV",
        help="energy above the hull that a crystal lies below, eV/atom (default: %(default)s)",
    )
    own.add_argument(
        "--share",
        type=float,
        default=SHARE,
        help="of the picks among each step's atoms of their kind (default: %(default)s)",
    )
    own.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be picked and what is left out for which reason; train nothing",
    )
    add_training_options(p, optional=("data", "out"))
    p.set_defaults(stage="denoiser")
    return p


def _picked(
    args: argparse.Namespace, data: list[PreparedData] | None
) -> tuple[list[Campaign], Parent, Picks]:
    from adit_plugins.improvement import pick, read_campaign
    from adit_plugins.improvement.lineage import parent_of

    campaigns = [read_campaign(folder, args.max_hull) for folder in args.folders]
    parent = parent_of(campaigns, args.init)
    return campaigns, parent, pick(campaigns, data, parent.config)


def _show(campaigns: list[Campaign], picks: Picks, compared: bool) -> None:
    """Print what is picked, and how many each reason has left out."""
    for each in campaigns:
        made = f", made by {each.weights}" if each.weights else ""
        by = f", energies by {' and '.join(each.potentials)}" if each.potentials else ""
        click.echo(f"{each.folder}: {len(each.candidates)} structures{made}{by}")
    for kind, total in picks.total.items():
        click.echo(f"{len(picks.chosen[kind])} of {total} {kind}s are picked")
        for reason, number in picks.left_out[kind].most_common():
            click.echo(f"{number:7d} {reason}")
        for place, chosen in enumerate(picks.chosen[kind][:BEST], start=1):
            energy = "" if chosen.energy is None else f"  {chosen.energy:+.3f} eV/atom"
            what = chosen.smiles or chosen.formula
            click.echo(f"    {place:2d}. {what}{energy}  {chosen.name}")
    if not compared:
        click.echo("Not compared with the training data: --data FILE [FILE ...] does it.")


def _run(args: argparse.Namespace) -> int:
    """Pick, train, and say what came out; returns the exit status."""
    from adit_model.outputs import check_writable
    from adit_model.sharded_data import load_data
    from adit_model.training.cli import check_folder, train
    from adit_model.training.distributed import starts_first
    from adit_model.training.options import values_of
    from adit_model.training.settings import TrainingConfig
    from adit_plugins.improvement.known import prepared
    from adit_plugins.improvement.lineage import KEY, kept_picks, places_of, round_of, save_picks
    from adit_plugins.improvement.picking import shares_with_picks

    # Everything that can be refused is, before the campaigns are read.
    TrainingConfig(**values_of(TrainingConfig, args))
    out = Path(args.out)
    check_folder(out, args.resume)
    check_writable(out)
    kinds = [load_data(Path(path)).kind for path in args.data]
    is_first = starts_first()  # of torchrun's processes; each picks, so that all know the kinds
    provenance: dict[str, Any] = {}
    if args.resume:
        args.init = None  # the run has its own network
        picked = kept_picks(out)
    else:
        campaigns, parent, picks = _picked(args, prepared(map(Path, args.data)))
        if is_first:
            _show(campaigns, picks, compared=True)
        args.init, args.name = parent.given, args.name or parent.next_name
        # The others read what the first one has written once all have met to train.
        picked = save_picks(picks, out) if is_first else places_of(picks, out)
        entry = round_of(parent, campaigns, picks, _options(args))
        provenance = {KEY: [*parent.rounds, entry]}
    args.shares = shares_with_picks(kinds, args.shares, args.share, list(picked))
    args.data = [*args.data, *map(str, picked.values())]
    status = train(args, provenance)
    if is_first:
        _finish(args, out)
    return status


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide what a run makes, those of training where they were given."""
    from adit_model.training.options import values_of
    from adit_model.training.settings import TrainingConfig

    always, never = ("seed", "steps", "minutes", "shares"), ("stage", "data", "out")
    usual = TrainingConfig(stage="denoiser", data=(), out="", steps=1)
    given = {
        name: value
        for name, value in values_of(TrainingConfig, args).items()
        if name in always or (name not in never and value != getattr(usual, name))
    }
    given = {name: value for name, value in given.items() if value not in (None, ())}
    names = [Path(path).name for path in args.data]
    return {"share": args.share, "max_hull": args.max_hull, "data": names, **given}


def _finish(args: argparse.Namespace, out: Path) -> None:
    """Write the model card, and say how often each structure was seen."""
    from adit_model.checkpoints.folder import load
    from adit_model.outputs import replacing
    from adit_model.training.saving import MODEL
    from adit_plugins.improvement.lineage import CARD, card_of, times_seen

    config, _, _ = load(out / MODEL)
    told = times_seen(config, args.data, args.shares)
    with replacing(out / MODEL / CARD) as temporary:
        temporary.write_text(card_of(config, told), encoding="utf-8")
    click.echo(told)
    click.echo(f"Generate with it: adit generate --checkpoint {out / MODEL} --out crystals.extxyz")
