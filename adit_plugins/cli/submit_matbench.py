"""`adit submit matbench-discovery`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adit_plugins.cli.options import (
    Shard,
    fmax_option,
    keep_constraints_option,
    max_steps_option,
)
from adit_plugins.cli.submit_steps import NAME, initial_structures, relaxed, say_unreadable
from adit_plugins.relax.limits import TIME_LIMIT_SECONDS

if TYPE_CHECKING:
    from adit_plugins.submissions.matbench import Artifacts
    from adit_plugins.submissions.model_file import ModelFile


@click.command("matbench-discovery")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR")
@click.option(
    "--relaxer", default="chgnet", show_default=True, help="The potential, as for adit relax."
)
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="WBM's summary with DFT's energies, for the metrics. [default: with FILE no metrics, "
    "without FILE the benchmark's own]",
)
@click.option(
    "--references",
    type=click.Choice(["shipped", NAME]),
    default="shipped",
    show_default=True,
    help="Energies of the elements: those shipped here, or the benchmark's (a download).",
)
@click.option(
    "--shards",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many there are, to finish all and write the files.",
)
@click.option("--shard", type=Shard(), help="Relax only part I of N, for one of N machines.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. [default: one a core]")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=TIME_LIMIT_SECONDS,
    show_default=True,
    help="Seconds a structure, whatever the potential does.",
)
@max_steps_option
@keep_constraints_option
@fmax_option
@click.option(
    "--model",
    "model_file",
    type=click.Path(path_type=Path),
    metavar="YML",
    help="The model's description; --template writes one to fill in.",
)
@click.option("--template", is_flag=True, help="Write --model to fill in, and nothing else.")
@click.option("--family", help="Folder of related models. [default: made of the model's key]")
@click.option("--discovery-url", help="Where you have uploaded the predictions.")
@click.option("--geo-opt-url", help="Where you have uploaded the relaxed structures.")
@click.option("--date", "day", help="yyyy-mm-dd, for the files' names. [default: today]")
@click.option(
    "--from-campaign",
    "campaign",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the relaxed crystals of a campaign in the same form instead of WBM's.",
)
@click.pass_context
def matbench_discovery(
    ctx: click.Context,
    file: Path | None,
    out: Path,
    campaign: Path | None,
    template: bool,
    model_file: Path | None,
    relaxer: str,
    **options: Any,
) -> None:
    """Relax WBM's initial structures and write a Matbench Discovery submission.

    That benchmark ranks energy models, not generators: what is submitted is the potential behind
    --relaxer with our relax-and-hull pipeline (FIRE, FrechetCellFilter). FILE holds the initial
    structures with their material_id; without it the benchmark's own data are taken, which are
    downloaded once. Run again after an interruption: finished structures stay.
    """
    from adit_plugins.submissions import matbench
    from adit_plugins.submissions.model_file import ModelFile
    from adit_plugins.submissions.shards import RelaxationSettings

    if template:
        _write_template(relaxer, model_file)
        return
    day = _day(options["day"])
    settings = RelaxationSettings(
        relaxer, options["fmax"], options["max_steps"], options["keep_constraints"]
    )
    model = None if model_file is None else ModelFile.read(model_file)
    if campaign is not None:
        if file is not None or model is not None:
            raise click.UsageError("--from-campaign takes neither FILE nor --model.")
        artifacts = matbench.write_artifacts(matbench.campaign_records(campaign), out, day)
        click.echo(f"{len(artifacts.predictions)} crystals of {campaign}:")
        _say_files(artifacts)
        return
    structures, unreadable = initial_structures(file)
    records = relaxed(ctx, structures, out, settings, **options)
    if records is None:
        return
    records |= _failures(unreadable)
    key, family = _place(model, records, options["family"])
    references = _references(options["references"])
    folder = out / "models" / family / key
    artifacts = matbench.write_artifacts(records, folder, day, references)
    scores = _scores(file, options["summary"], artifacts)
    _write_json(out / "summary.json", matbench.summary_of(artifacts, records, settings) | scores)
    say_unreadable(unreadable, len(records))
    _say_files(artifacts)
    if model is None:
        click.echo("No model file: pass --model YML (adit submit matbench-discovery --template).")
        return
    urls = {"discovery": options["discovery_url"], "geo_opt": options["geo_opt_url"]}
    numbers = {name: each for name, each in scores.items() if isinstance(each, Mapping)}
    whole = matbench.described(model, artifacts, family, settings, numbers, urls)
    path = out / "models" / family / f"{key}.yml"
    _write_text(path, whole.to_yaml())
    click.echo(f"  {path}")
    if None in urls.values():
        click.echo("Upload both files, then run again with --discovery-url and --geo-opt-url.")


def _write_template(relaxer: str, path: Path | None) -> None:
    from adit_plugins.submissions.model_file import as_yaml, template

    if path is None:
        raise click.UsageError("--template needs --model YML, the file to write.")
    if path.exists():
        raise ValueError(f"{path} exists. Choose another name.")
    _write_text(path, as_yaml(template(relaxer)))
    click.echo(f"Fill in {path}.")


def _day(day: str | None) -> str:
    from datetime import UTC, date, datetime

    if day is None:
        return datetime.now(tz=UTC).date().isoformat()
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        raise ValueError(f"--date {day} must be yyyy-mm-dd.")
    return date.fromisoformat(day).isoformat()


def _failures(unreadable: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    from adit_plugins.relax.files import unreadable as failure
    from adit_plugins.submissions.shards import record_of

    return {name: record_of(name, failure(name, reason)) for name, reason in unreadable.items()}


def _place(
    model: ModelFile | None, records: Mapping[str, Mapping[str, Any]], family: str | None
) -> tuple[str, str]:
    from adit_plugins.submissions.model_file import key_of

    key = model.model_key if model else key_of(next(iter(records.values()))["potential"])
    family = family or re.split(r"[-.]", key)[0]
    if not re.fullmatch(r"[a-z0-9_]+", family):
        raise ValueError(f"--family {family} must be lower case with underscores.")
    return key, family


def _references(name: str) -> Mapping[str, float] | None:
    from adit_plugins import registry

    if name == "shipped":
        return None
    found: Mapping[str, float] = registry.load("adit.benchmarks", NAME)().references()
    return found


def _scores(file: Path | None, summary: Path | None, artifacts: Artifacts) -> dict[str, Any]:
    """Return the metrics by subset, or the reason why there are none."""
    from adit_plugins import registry
    from adit_plugins.submissions.matbench import read_summary, subsets

    if summary is None and file is not None:
        click.echo("No metrics: pass --summary CSV, WBM's summary.")
        return {}
    benchmark = registry.load("adit.benchmarks", NAME)()
    table = benchmark.summary() if summary is None else read_summary(summary)
    scores: dict[str, Any] = {}
    for name, subset in subsets(table, artifacts.predictions).items():
        try:
            scores[name] = benchmark.score(subset)
            found = scores[name]
            click.echo(
                f"{name}: F1 {found['F1']:.3f}, DAF {found['DAF']:.2f}, MAE {found['MAE']:.3f} "
                f"eV/atom, {len(subset)} materials, {found['missing_preds']:.0f} without prediction"
            )
        except ValueError as error:
            scores[name] = str(error)
            click.echo(f"{name}: {error}")
    return scores


def _say_files(artifacts: Artifacts) -> None:
    for path in (artifacts.discovery, artifacts.geo_opt):
        click.echo(f"  {path}")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    from adit_model.outputs import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
