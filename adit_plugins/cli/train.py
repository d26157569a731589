"""`adit train`: the two stages of `adit_model.training`, and what installed packages train."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Train: `adit train autoencoder|denoiser|labels|prefilter --help`."""
    from adit_model.training.settings import STAGES
    from adit_plugins import registry

    trainers = registry.names("adit.trainers")
    known = [*STAGES, *trainers]
    subject = arguments[0] if arguments else "--help"
    if subject in ("-h", "--help"):
        click.echo(f"Usage: adit train {'|'.join(known)} [OPTIONS]\n")
        click.echo("What each takes: adit train SUBJECT --help")
        return
    if subject in trainers:
        ctx.exit(registry.load("adit.trainers", subject)(list(arguments[1:])))
    if subject not in STAGES and not subject.startswith("-"):
        raise click.UsageError(
            f"Nothing to train is called {subject!r}. Known: {', '.join(known)}."
        )
    from adit_model.training.cli import main

    ctx.exit(main(list(arguments)))
