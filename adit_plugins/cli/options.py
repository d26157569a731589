"""Options that several commands share, and a check of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from adit_plugins.relax.limits import FMAX, MAX_STEPS

KINDS = ("crystal", "molecule")


def symbols(_ctx: click.Context, _option: click.Parameter, text: str | None) -> list[str] | None:
    """Element symbols between commas or spaces; whether they exist is checked with the request."""
    return None if text is None else text.replace(",", " ").split()


def _conditions(
    _ctx: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, float | int | None] | None:
    """`NAME=VALUE` each; whether the checkpoint has it is checked with the request."""
    scales = option.name == "condition_guidance"
    found: dict[str, float | int | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not equals or not name:
                raise ValueError
            number = None if value.lower() == "none" and not scales else float(value)
        except ValueError:
            raise click.BadParameter(
                f"{text!r} is not NAME=NUMBER, such as band_gap="
                + ("2" if scales else "3 (or NAME=none)")
            ) from None
        found[name] = int(number) if number is not None and number.is_integer() else number
    return found or None


_COMPOSITION = (
    click.option(
        "--elements", callback=symbols, metavar="A,B,..", help="Nothing but these elements."
    ),
    click.option(
        "--exclude-elements", callback=symbols, metavar="A,B,..", help="None of these elements."
    ),
    click.option(
        "--chemical-system",
        metavar="A-B-..",
        help="Exactly these, each at least once; * is one element more, as in 'Li-*-O'. Several "
        "take turns: Li-Fe-O,Li-Mn-O.",
    ),
    click.option(
        "--contains", callback=symbols, metavar="A,B,..", help="Each of these, beside others."
    ),
    click.option(
        "--formula",
        help="Exact proportions, e.g. LiMn2O4; crystals hold a multiple. The release ends at 20 "
        "atoms a cell: olivine LiFePO4, with 28 in its own, cannot come out.",
    ),
)

_STEERING = (
    click.option(
        "--steer",
        metavar="NAME",
        help="Lead samples to low values of a score: energy_above_hull, density, volume, a "
        "relaxer, an ASE calculator, an RDKit descriptor, module:function; =-NAME for high values, "
        "NAME=TARGET for those near it.",
    ),
    click.option(
        "--steer-weight",
        type=click.FloatRange(min=0, min_open=True),
        help="Of a unit of the score. [default: 2 over the particles' standard deviation]",
    ),
    click.option(
        "--particles",
        type=click.IntRange(min=2),
        default=4,
        show_default=True,
        help="With --steer: that compete for each sample; so many times the work.",
    ),
)

_NETWORK = (
    click.option(
        "--condition",
        "conditions",
        multiple=True,
        callback=_conditions,
        metavar="NAME=VALUE",
        help="A property, e.g. band_gap=3 (eV); repeatable. `adit doctor` lists a checkpoint's.",
    ),
    click.option(
        "--condition-guidance",
        multiple=True,
        callback=_conditions,
        metavar="NAME=SCALE",
        help="How hard the elements are drawn by a --condition, e.g. band_gap=3; 1 is plain. "
        "[default: the checkpoint's own]",
    ),
    click.option(
        "--elements-first/--one-shot",
        default=None,
        help="Draw the elements first, then their geometry; or both at once. [default: first, "
        "where the checkpoint can]",
    ),
    click.option(
        "--charge-balanced",
        is_flag=True,
        help="Draw compositions of crystals until SMACT's rule holds.",
    ),
    click.option(
        "--checkpoint",
        help="Name, folder, published .ckpt file, or hf:OWNER/REPOSITORY. [default: the release]",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option(
        "--num-steps",
        type=click.IntRange(min=1),
        help="Steps from noise to structure. [default: the checkpoint's own for the kind]",
    ),
    click.option(
        "--guidance-scale",
        type=click.FloatRange(min=0),
        help="Guidance away from a weaker network; 1 is none. [default: the checkpoint's own]",
    ),
    click.option(
        "--sampler",
        default="ancestral",
        show_default=True,
        help="ancestral, euler, heun, or published (arXiv 2503.03965).",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        help="Samples made at once; bounds the memory, not the result. [default: 512; on a GPU "
        "8192]",
    ),
    click.option(
        "--precision",
        type=click.Choice(("auto", "float32", "bfloat16")),
        default="auto",
        show_default=True,
        help="Of the network's matrices; auto: bfloat16 where it is faster. Samples differ "
        "between the two.",
    ),
    click.option("--device", help="cpu, cuda, cuda:1, ... [default: CUDA if there is one]"),
)


class Shard(click.ParamType[tuple[int, int]]):
    """I/N: the part I, from 0, of N parts."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (I, N)."""
        if isinstance(value, tuple):
            return value
        first, slash, second = str(value).partition("/")
        if not (slash and first.isdigit() and second.isdigit() and int(first) < int(second)):
            self.fail(f"{value!r} is not I/N with I from 0 to N-1, such as 0/4.", param, ctx)
        return int(first), int(second)


fmax_option = click.option(
    "--fmax",
    type=click.FloatRange(min=0, min_open=True),
    default=FMAX,
    show_default=True,
    help="Force limit, eV/angstrom.",
)

max_steps_option = click.option(
    "--max-steps",
    type=click.IntRange(min=0),
    default=MAX_STEPS,
    show_default=True,
    help="Relaxation steps a structure; what has not converged by then is marked.",
)

hull_option = click.option(
    "--hull",
    default="mp",
    show_default=True,
    metavar="SOURCE",
    help="mp (the shipped table), alexandria (downloaded, 83 MB), tri2024 (MatterGen's reference, "
    "downloaded, 907 MB), alexandria:FILE or tri2024:FILE (a copy of these), mp-api (with "
    "MP_API_KEY), entries:FILE (JSON of pymatgen; entries:PBE:FILE keeps only GGA and GGA+U), "
    "matbench-discovery:FILE (its patched phase diagram) or table:FILE (CSV).",
)

keep_constraints_option = click.option(
    "--keep-constraints",
    is_flag=True,
    help="Obey the constraints of the input (fixed atoms). [default: drop them, and say so]",
)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what samples are made of, and how."""
    command = network_options(command)
    for option in reversed(_COMPOSITION + _STEERING):
        command = option(command)
    return command


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how the network makes samples."""
    for option in reversed(_NETWORK):
        command = option(command)
    return command


def check_time_limit(ctx: click.Context) -> None:
    """Refuse a limit that nothing could enforce: only a process can be ended.

    Raises:
        UsageError: `--time-limit` beside `--workers 0`.
    """
    source = ctx.get_parameter_source("time_limit")
    if ctx.params["workers"] == 0 and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--time-limit ends processes, and --workers 0 has none; give 1.")
