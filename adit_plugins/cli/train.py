"""`adit train`: the two training stages of `adit_model.training`."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def train(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Train a stage: `adit train autoencoder|denoiser --help`."""
    from adit_model.training_cli import main

    ctx.exit(main(list(arguments)))
