"""`adit generate`: samples into a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.options import KINDS, sampling_options
from adit_plugins.cli.progress import Report, progress

if TYPE_CHECKING:
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.structures.samples import Sample


@click.command()
@click.option("--kind", type=click.Choice(KINDS), default="crystal", show_default=True)
@click.option("--num", type=click.IntRange(min=1), default=16, show_default=True)
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
@sampling_options
@click.pass_context
def generate(
    ctx: click.Context,
    kind: str,
    num: int,
    out: str,
    form: str | None,
    ids: tuple[str, ...],
    **recipe: Any,
) -> None:
    """Generate crystals or molecules into a file; the suffix names the format.

    Sample i of a seed is always the same, however many are made at once. Ctrl-C keeps what was
    finished.
    """
    wanted = _read_ids(ctx, ids)
    from adit_plugins.generation.generator import ADiTGenerator
    from adit_plugins.structures.writers import check_output

    check_output(out, kind, form)
    from adit_plugins.generation.recipe import check_device

    check_device(recipe["device"])
    generator = ADiTGenerator(kind=kind, **recipe)  # type: ignore[arg-type]
    total = len(wanted) or num
    with progress() as report:
        samples = (
            _again(generator, wanted, report) if wanted else _fresh(generator, num, report, kind)
        )
        finished = _write(samples, out, form, total)
    if not finished:
        ctx.exit(130)


def _read_ids(ctx: click.Context, ids: tuple[str, ...]) -> list[str]:
    if not ids:
        return []
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


def _fresh(generator: ADiTGenerator, num: int, report: Report, kind: str) -> Iterator[Sample]:
    return generator.stream(num, progress=lambda done, _: report(f"{kind}s", done, num))


def _again(generator: ADiTGenerator, ids: list[str], report: Report) -> Iterator[Sample]:
    at_once = generator.at_once(len(ids))
    for start in range(0, len(ids), at_once):
        chunk = ids[start : start + at_once]
        yield from generator.sample_ids(chunk)
        report("samples", start + len(chunk), len(ids))


def _write(samples: Iterator[Sample], out: str, form: str | None, total: int) -> bool:
    """Write the samples as they come; False after Ctrl-C, with the finished ones in the file."""
    from adit_plugins.structures.writers import write_samples

    done = 0

    def counted() -> Iterator[Sample]:
        nonlocal done
        for sample in samples:
            yield sample
            done += 1  # the writer came back for the next one, so this one is in the file

    try:
        result = write_samples(counted(), out, form)
    except KeyboardInterrupt:
        kept = f"they are in {out}" if done else "nothing was written"
        click.echo(f"Interrupted: {done} of {total} samples were finished; {kept}.", err=True)
        return False
    if not result.written:
        raise ValueError(
            f"none of the {total} samples fits into {out}: {result.skipped[0][1].rstrip('.')}. "
            "Use .extxyz, .db or .json."
        )
    if result.skipped:
        name, reason = result.skipped[0]
        click.echo(
            f"{len(result.skipped)} of {total} do not fit into this format and were left out, "
            f"the first, {name}: {reason}",
            err=True,
        )
    click.echo(f"{result.written} samples in {out}.")
    return True
