"""`adit generate`: samples into a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli import sharded
from adit_plugins.cli.effects import check_steering, given, refuse
from adit_plugins.cli.options import KINDS, Shard, sampling_options, symbols
from adit_plugins.cli.progress import Report, progress

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.generation.keeping import Selection
    from adit_plugins.structures.samples import Sample


TRIES = 20  # samples for each that is wanted, at most
KEPT = 10_000  # samples in memory while none has fitted into the file


@click.command()
@click.option("--kind", type=click.Choice(KINDS), default="crystal", show_default=True)
@click.option(
    "--num",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Samples to make. [with --until: at most; default 20 for each]",
)
@click.option(
    "--valid-only",
    is_flag=True,
    help="Keep only valid samples: crystals by distances and volume, molecules as a whole (one "
    "fragment, no radical). What is thrown away is counted.",
)
@click.option(
    "--valid-by",
    callback=symbols,
    metavar="RULE,..",
    help="More that valid samples must keep. Molecules: posebusters (geometry, strain), "
    "no-ylides (no charged carbon), uncharged; crystals: charges (SMACT).",
)
@click.option("--unique", is_flag=True, help="Of equal samples keep the first.")
@click.option(
    "--until",
    type=click.IntRange(min=1),
    metavar="N",
    help="Go on until N samples are kept by --valid-only and --unique, or --num are made.",
)
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help=".extxyz, .xyz, .db, .json, .aditjson, .cif (crystals), .sdf (molecules), an installed "
    "exporter's suffix, or a folder for CIFs. "
    "An existing one is replaced.",
)
@click.option(
    "--format", "form", metavar="NAME", help="Of the file; an installed exporter. [default: suffix]"
)
@click.option("--num-atoms", type=click.IntRange(min=1), help="In every sample.")
@click.option(
    "--ids",
    multiple=True,
    metavar="ID",
    help="Make these samples again (checkpoint/seed/index, or a file with one a line); repeatable. "
    "The other settings must be those of the first time.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes of one thread each; 0: none. [default: one a core for 256 samples or more]",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make --out a folder of files with N samples each (--format, default extxyz); the same "
    "command goes on where it was. adit merge makes one file of them.",
)
@click.option("--shard", type=Shard(), help="Only the files of one of N machines.")
@click.option(
    "--executor",
    default="processes",
    show_default=True,
    help="Of the files: serial, processes, parsl, parsl:FILE.py, or a plugin's.",
)
@sampling_options
@click.pass_context
def generate(
    ctx: click.Context,
    kind: str,
    num: int,
    valid_only: bool,
    valid_by: list[str] | None,
    unique: bool,
    until: int | None,
    out: str,
    form: str | None,
    ids: tuple[str, ...],
    shard_size: int | None,
    shard: tuple[int, int] | None,
    executor: str,
    **recipe: Any,
) -> None:
    """Generate crystals or molecules into a file; the suffix names the format.

    The release makes crystals of up to 20 atoms in the cell, and molecules of up to 29 atoms of H,
    C, N, O and F. Sample i of a seed is always the same, however many are made at once. Ctrl-C
    keeps what was finished.
    """
    check_steering(ctx)
    if sharded.is_wanted(ctx):
        sharded.generate(ctx, recipe)
        return
    wanted = _read_ids(ctx, ids)
    num, recipe["batch_size"] = _budget(ctx, num, recipe["batch_size"])
    from adit_plugins.generation.keeping import Selection, check_rules

    rules = check_rules(valid_by or (), kind)
    selection = Selection(valid_only or bool(valid_by), unique, until, rules[1:])
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.structures.writers import check_output

    check_output(out, kind, form)
    from adit_plugins.generation.recipe import check_device

    check_device(recipe["device"])
    generator = ADiTGenerator(kind=kind, **recipe)  # type: ignore[arg-type]
    total = len(wanted) or num
    with progress() as report:
        samples = (
            _again(generator, wanted, report)
            if wanted
            else _fresh(generator, num, report, f"{kind}s of at most" if until else f"{kind}s")
        )
        finished = _write(
            _kept(samples, selection, report, kind), out, form, total, selection, kind
        )
    if not finished:
        ctx.exit(130)


def _budget(ctx: click.Context, num: int, batch_size: int | None) -> tuple[int, int | None]:
    """Return how many samples to make at most, and how many at once.

    Large batches are faster, and would go far beyond the few that --until may need: each process
    makes as many as are wanted, and two of them the rest of what is thrown away.

    Raises:
        UsageError: nothing that --until could count.
    """
    until = ctx.params["until"]
    if until is None:
        return num, batch_size

    def given(name: str) -> bool:
        return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE

    choices = [ctx.params[name] for name in ("valid_only", "valid_by", "unique")]
    if not any(choices) or ctx.params["ids"]:
        raise click.UsageError(
            "--until counts what --valid-only, --valid-by or --unique keep of fresh samples; for N "
            "samples of any kind say --num N."
        )
    from adit_plugins.generation.recipe import ENDLESS

    return (
        num if given("num") else TRIES * until,
        batch_size or min(ENDLESS, max(8, until)),
    )


def _read_ids(ctx: click.Context, ids: tuple[str, ...]) -> list[str]:
    if not ids:
        return []
    refuse(given(ctx, ["workers"]), "single samples are made in this process")
    for name in ("num", "seed"):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--ids says which samples to make; leave out --{name}.")
    wanted: list[str] = []
    for each in ids:
        path = Path(each)
        try:
            wanted += path.read_text(encoding="utf-8").split() if path.is_file() else [each]
        except UnicodeDecodeError as error:
            raise click.UsageError(f"--ids {each} is no text file with one id a line.") from error
    if not wanted:
        raise click.UsageError(f"No ids in {', '.join(ids)}: write one a line.")
    return wanted


def _fresh(generator: ADiTGenerator, num: int, report: Report, stage: str) -> Iterator[Sample]:
    return generator.stream(num, progress=lambda done, _: report(stage, done, num))


def _kept(
    samples: Iterator[Sample], selection: Selection, report: Report, kind: str
) -> Iterator[Sample]:
    """Choose, and say how far the wanted number is reached."""
    for sample in selection.of(samples):
        yield sample
        if selection.num is not None:
            report(f"{kind}s kept", selection.kept, selection.num)


def _again(generator: ADiTGenerator, ids: list[str], report: Report) -> Iterator[Sample]:
    at_once = generator.at_once(len(ids))
    for start in range(0, len(ids), at_once):
        chunk = ids[start : start + at_once]
        yield from generator.sample_ids(chunk)
        report("samples", start + len(chunk), len(ids))


def _write(
    samples: Iterator[Sample],
    out: str,
    form: str | None,
    total: int,
    selection: Selection,
    kind: str,
) -> bool:
    """Write the samples as they come; False after Ctrl-C, with the finished ones in the file.

    Raises:
        ValueError: nothing was kept, or nothing fits into the format.
    """
    from adit_plugins.structures.writers import write_samples

    done = 0
    first: list[Sample] = []  # what would be lost if nothing fits into the format

    def counted() -> Iterator[Sample]:
        nonlocal done
        for sample in samples:
            if len(first) < KEPT:
                first.append(sample)
            yield sample
            done += 1  # the writer came back for the next one, so this one is in the file

    try:
        result = write_samples(counted(), out, form)
    except KeyboardInterrupt:
        kept = f"they are in {out}" if done else "nothing was written"
        click.echo(f"Interrupted: {done} of {total} samples were finished; {kept}.", err=True)
        return False
    if not selection.kept:
        raise ValueError(
            f"none of the {selection.made} samples was kept ({_thrown(selection)}); "
            "nothing was written"
        )
    if not result.written:
        raise ValueError(
            f"none of the {done} samples fits into {out}: {result.skipped[0][1].rstrip('.')}. "
            f"They are in {_beside(first, Path(out))}; for another format see --out."
        )
    if result.skipped:
        name, reason = result.skipped[0]
        click.echo(
            f"{len(result.skipped)} of {done} do not fit into this format and were left out, "
            f"the first, {name}: {reason}",
            err=True,
        )
    made = f" of {selection.made} made; thrown away: {_thrown(selection)}"
    click.echo(f"{result.written} samples in {out}{made if _chooses(selection) else ''}.")
    if selection.valid_only:
        click.echo(_rules(selection, kind))
    if selection.num is not None and selection.kept < selection.num:
        click.echo(
            f"{selection.kept} are fewer than --until {selection.num}: the budget of {total} "
            "samples is used up; a larger --num goes further.",
            err=True,
        )
    return True


def _rules(selection: Selection, kind: str) -> str:
    """What valid has meant, and what else could be asked."""
    from adit_plugins.generation.keeping import RULES, check_rules

    asked = check_rules(selection.rules, kind)
    said = "; ".join(f"{name} ({RULES[kind][name]})" for name in asked)
    more = ",".join(name for name in RULES[kind] if name not in asked)
    return f"Valid by {said}." + (f" More can be asked: --valid-by {more}." if more else "")


def _chooses(selection: Selection) -> bool:
    return selection.valid_only or selection.unique


def _thrown(selection: Selection) -> str:
    return ", ".join(f"{n} {why}" for why, n in selection.thrown.items()) or "nothing"


def _beside(samples: list[Sample], out: Path) -> Path:
    """Keep what was made where the format takes none of it, in a file that was not there."""
    from adit_plugins.structures.writers import write_samples

    target = out.with_suffix(".extxyz")
    number = 1
    while target.exists():
        number += 1
        target = out.with_name(f"{out.stem}-{number}.extxyz")
    write_samples(samples, str(target))
    return target
