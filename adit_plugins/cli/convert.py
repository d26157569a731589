"""`adit convert`: the published checkpoint to our files and back."""

from __future__ import annotations

from pathlib import Path

import click

from adit_model.outputs import check_writable

NOT_OURS = "{} exists and is no checkpoint; name another place, nothing was written."


@click.command()
@click.argument("source", metavar="CHECKPOINT")
@click.argument("target", metavar="DIR|FILE.ckpt", type=click.Path(path_type=Path))
@click.option(
    "--num-heads",
    type=click.IntRange(min=1),
    help="Attention heads of a .ckpt of unusual size. [default: one per 64 of the width]",
)
@click.option("--overwrite", is_flag=True, help="Replace an older checkpoint at the target.")
def convert(source: str, target: Path, num_heads: int | None, overwrite: bool) -> None:
    """Write CHECKPOINT as safetensors into DIR, or as the published format into FILE.ckpt.

    CHECKPOINT is a shipped name, a folder, a .ckpt file of the published model, or
    hf:OWNER/REPOSITORY[@REVISION][:FILE] on the Hugging Face hub. The weights keep their float32
    values, so samples stay the same. Only a network with the published options fits into a .ckpt.
    """
    to_published = target.suffix == ".ckpt"
    _check_target(target, to_published, overwrite)
    check_writable(target)
    from adit_model import ADiT
    from adit_model.checkpoints import published

    model = ADiT.from_pretrained(source, device="cpu", num_heads=num_heads)
    if to_published:
        published.export(model.config, model.state_dict(), target)
    else:
        model.save_pretrained(target)
    licence = model.config.provenance.get("licence", "not stated")
    click.echo(f"{model.name} ({model.hash}) in {target}; licence: {licence}.")


def _check_target(target: Path, to_published: bool, overwrite: bool) -> None:
    """Refuse, before any work, a target that holds something else.

    Raises:
        ValueError: the target exists and may not be replaced.
    """
    if not target.exists() or (target.is_dir() and not to_published and not any(target.iterdir())):
        return
    from adit_model.checkpoints.folder import is_checkpoint

    replaceable = target.is_file() if to_published else is_checkpoint(target)
    if not replaceable:
        raise ValueError(NOT_OURS.format(target))
    if not overwrite:
        raise ValueError(f"{target} exists; add --overwrite to replace it.")
