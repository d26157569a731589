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
    from adit_plugins import registry

    if arguments and arguments[0] in registry.names("adit.trainers"):
        ctx.exit(registry.load("adit.trainers", arguments[0])(list(arguments[1:])))
    from adit_model.training_cli import main

    ctx.exit(main(list(arguments)))
