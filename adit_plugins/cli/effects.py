"""Options that would have no effect beside others: refused, each with the next step."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.core import ParameterSource

from adit_plugins.cli.options import check_time_limit

MEANS = ("resume", "workers", "executor", "chunk_size", "time_limit", "minutes")  # no verdict
OPINION = ("confirm", "confirm_steps", "confirm_limit")  # may be asked for later
POTENTIALS = ("relaxer", "prefilter", "confirm")
NAMED_AGAIN = (*POTENTIALS, "hull")  # of the campaign, where they are one's own code
PREFILTERING = ("prefilter_steps", "prefilter_limit")
OPINING = ("confirm_steps", "confirm_limit")
# What is about crystals that are relaxed.
RELAXING = (
    *POTENTIALS, "fmax", "max_steps", *PREFILTERING, *OPINING, "hull", "max_hull", "until",
    "neutral_by",
)  # fmt: skip
MOLECULES = (
    "molecules are checked and not relaxed. Leave {} out; adit relax FILE --relaxer NAME relaxes "
    "molecules with a potential for them"
)


def given(ctx: click.Context, names: Iterable[str]) -> str:
    """The options among some that stand on the command line."""
    source = ctx.get_parameter_source
    return ", ".join(option(n) for n in names if source(n) is ParameterSource.COMMANDLINE)


def option(name: str) -> str:
    """A parameter as it is typed."""
    return "FILE" if name == "file" else f"--{name.replace('_', '-')}"


def refuse(options: str, reason: str) -> None:
    """End with what would have no effect, if there is anything.

    Raises:
        UsageError: see above.
    """
    if options:
        raise click.UsageError(f"{options} would have no effect: {reason.format(options)}.")


def check_steering(ctx: click.Context) -> None:
    """Refuse options of steering where nothing is steered.

    Raises:
        UsageError: see above.
    """
    if ctx.params["steer"] is None:
        refuse(given(ctx, ["particles"]), "particles compete with --steer NAME; add it")


def check_discover(ctx: click.Context, making: Iterable[str]) -> None:
    """Refuse options of a new campaign that would have no effect beside others.

    Args:
        ctx: of `adit discover`.
        making: names of the options that say how samples are made.

    Raises:
        UsageError: see above.
    """
    params = ctx.params
    if params["file"] is not None:
        refuse(
            given(ctx, ["kind", *making]),
            f"{params['file']} is screened as it is, nothing is made",
        )
    both = given(ctx, POTENTIALS)
    if params["no_relax"] and both:
        raise click.UsageError(f"{both} and --no-relax exclude each other.")
    if params["until"] is not None and (params["shard"] or params["kind"] == "molecule"):
        raise click.UsageError(
            "--until counts crystals of one machine; leave out --shard and --kind molecule. Valid "
            "molecules: adit generate --kind molecule --until N --valid-only --unique."
        )
    if params["kind"] == "molecule":
        refuse(given(ctx, [*RELAXING, "no_relax"]), MOLECULES)
    if params["no_relax"]:
        refuse(given(ctx, RELAXING), "--no-relax only makes and checks; leave out one of the two")
    if params["prefilter"] is None:
        refuse(given(ctx, PREFILTERING), "there is no pre-filter; add --prefilter mace-adit")
    if params["confirm"] is None:
        refuse(given(ctx, OPINING), "nothing is asked a second time; add --confirm NAME")
    if params["executor"] == "serial":
        refuse(given(ctx, ["workers", "time_limit"]), "--executor serial has no processes")
    check_steering(ctx)
    check_time_limit(ctx)


def check_kinds(ctx: click.Context, num_crystals: int) -> None:
    """Refuse what is about crystals where a file holds none.

    Raises:
        UsageError: see above.
    """
    if not num_crystals:
        refuse(given(ctx, RELAXING), f"{ctx.params['file']} holds no crystals, and {MOLECULES}")


def check_resume(ctx: click.Context) -> None:
    """Refuse options that a campaign has had from its beginning.

    Raises:
        UsageError: see above.
    """
    names = given(ctx, [name for name in ctx.params if name not in MEANS + NAMED_AGAIN + OPINION])
    if names:
        allowed = ", ".join(option(name) for name in MEANS[1:] + OPINION)
        raise click.UsageError(
            f"--resume takes the campaign's own settings, not {names}. Allowed: {allowed}."
        )


def check_evaluate(ctx: click.Context, num_crystals: int, num_molecules: int) -> None:
    """Refuse what is about crystals or molecules where there are none.

    Raises:
        UsageError: see above.
    """
    where = "in what was read; leave {} out"
    if not num_crystals:
        about = ["reference", "targets", "relax", "max_steps"]
        refuse(given(ctx, about), f"there are no crystals {where}")
    if not num_molecules:
        refuse(given(ctx, ["molecule_reference", "fast"]), f"there are no molecules {where}")


COMPUTING = (
    "engine", "cutoff", "kpoint_density", "xc", "relax_steps", "fmax", "references", "workers",
    "executor",
)  # fmt: skip


def check_dft(ctx: click.Context, campaign: bool) -> None:
    """Refuse what plays no part in writing inputs, in single points, for a file or a campaign.

    Raises:
        UsageError: see above.
    """
    params = ctx.params
    if params["inputs"] is not None:
        refuse(given(ctx, COMPUTING), "--inputs writes files and computes nothing; leave {} out")
    elif params["relax_steps"] == 0:
        refuse(given(ctx, ["fmax"]), "these are single points; add --relax-steps N")
    if not campaign:
        refuse(given(ctx, ["top"]), f"all crystals of {params['source']} are taken; leave {{}} out")
    elif params["inputs"] is None:
        refuse(
            given(ctx, ["out"]),
            f"results of a campaign go into {params['source']}; leave {{}} out",
        )
