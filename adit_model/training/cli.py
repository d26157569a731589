"""Command line of `python -m adit_model.training`: options, progress and the loss plot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch

from adit_model.checked import HELP
from adit_model.config import (
    RECIPE,
    SIZES,
    ADiTConfig,
    AutoencoderConfig,
    DenoiserConfig,
    FlowConfig,
    sized,
)
from adit_model.model import ADiT
from adit_model.outputs import replacing, said
from adit_model.training.display import plot_losses, progress_bar
from adit_model.training.distributed import World, joined
from adit_model.training.options import add_options, changes_of, values_of
from adit_model.training.running import run
from adit_model.training.saving import SETTINGS, STATE
from adit_model.training.settings import STAGES, TrainingConfig, TrainingError, check_architecture
from adit_model.training.stages import continued_model, initial_model
from adit_model.training.trainer import Trainer

INTERRUPTED = 130  # the shell's exit status for Ctrl-C


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"Error: {message}. See: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """All options; defaults are those of the shipped release."""
    p = Parser(prog="adit train", description="Train a stage of ADiT on prepared data.")
    p.add_argument("stage", choices=STAGES)
    add_training_options(p)
    return p


def add_training_options(p: argparse.ArgumentParser, optional: Collection[str] = ()) -> None:
    """Add all options of a run to a parser, which may have others.

    Args:
        p: the parser.
        optional: names of required ones that may be left out; who calls `train` checks them.
    """
    start = p.add_mutually_exclusive_group()
    start.add_argument("--autoencoder", type=Path, metavar="DIR", help="trained first stage")
    start.add_argument(
        "--init",
        metavar="CHECKPOINT",
        help="begin with the weights and sizes of a checkpoint, such as adit-joint",
    )
    p.add_argument("--name", help="checkpoint name, first part of sample ids; default: adit")
    p.add_argument(
        "--resume", action="store_true", help="continue the run in --out with its network"
    )
    p.add_argument(
        "--condition",
        nargs="+",
        default=(),
        metavar="NAME",
        help="what the network is told besides: elements, or a label of the prepared data",
    )
    add_options(p, TrainingConfig, optional=optional)
    p.add_argument("--device", help="cpu, cuda, ...; by default CUDA if there is one")
    _add_architecture(p)


SHARED = ("width", "num_heads")  # of the stage that is trained
# What else a stage's options describe.
PARTS: dict[str, tuple[type, ...]] = {
    "autoencoder": (AutoencoderConfig,),
    "denoiser": (DenoiserConfig, FlowConfig),
    "prior": (),
}
# What may be changed of a network that is there already; the rest is in the shapes of its weights,
# or in what these have learned.
CHANGEABLE = ("pair_bias", "latents", "time_sampling", "time_mean", "time_std", "frac_loss")


def _add_architecture(p: argparse.ArgumentParser) -> None:
    """Options of the network; what is not given is None, and then as in `RECIPE`."""
    first, second = RECIPE.autoencoder, RECIPE.denoiser
    assert second is not None
    sizes = p.add_argument_group("sizes of the network")
    sizes.add_argument("--size", choices=sorted(SIZES), help="named denoiser size")
    for name in SHARED:
        (field,) = (each for each in dataclasses.fields(first) if each.name == name)
        told = f"(default: {getattr(first, name)} in the autoencoder, {getattr(second, name)} else)"
        sizes.add_argument(_option(name), type=int, help=f"{field.metadata[HELP]} {told}")
    add_options(p.add_argument_group("the autoencoder"), AutoencoderConfig, first, SHARED)
    add_options(p.add_argument_group("the denoiser"), DenoiserConfig, second, SHARED)
    add_options(p.add_argument_group("the flow"), FlowConfig, RECIPE.flow)


def architecture(args: argparse.Namespace) -> ADiTConfig:
    """The configuration that the options describe.

    Raises:
        TrainingError: an option is for another stage.
    """
    _check_stage(args)
    recipe = RECIPE
    assert recipe.denoiser is not None
    first = changes_of(AutoencoderConfig, args)
    second = changes_of(DenoiserConfig, args)
    if args.depth:
        first = {"encoder_depth": args.depth, "decoder_depth": args.depth} | first
    if args.width:
        first = {"mlp_width": 4 * args.width} | first
    if args.latent_dim:
        second["latent_dim"] = args.latent_dim
    if args.size:
        second = dict(zip(("width", "depth", "num_heads"), sized(args.size), strict=True)) | second
    return dataclasses.replace(
        recipe,
        name=args.name or recipe.name,
        autoencoder=dataclasses.replace(recipe.autoencoder, **first),
        denoiser=dataclasses.replace(recipe.denoiser, **second),
        flow=dataclasses.replace(recipe.flow, **changes_of(FlowConfig, args)),
    )


def _check_stage(args: argparse.Namespace) -> None:
    """Refuse what would change nothing.

    Raises:
        TrainingError: an option of the architecture is not of this stage.
    """
    known = {name for part in PARTS[args.stage] for name in _names(part)}
    known |= {"autoencoder": {"depth"}, "denoiser": {"size"}}.get(args.stage, set())
    if args.size and args.stage == "autoencoder":
        raise TrainingError(
            f"--size {args.size} names a denoiser; size an autoencoder by --width and --depth"
        )
    if wrong := [_option(name) for name in _given(args) if name not in known]:
        raise TrainingError(
            f"{', '.join(wrong)}: not of the {args.stage}; see adit train {args.stage} --help"
        )
    check_architecture(args.architecture or RECIPE.autoencoder.architecture, _given(args))


def _given(args: argparse.Namespace) -> list[str]:
    """The options of the architecture that were given."""
    every = {name for parts in PARTS.values() for part in parts for name in _names(part)}
    return [name for name in sorted(every | {"size"}) if getattr(args, name) is not None]


def _names(record: type) -> set[str]:
    """The fields of a record that are options."""
    return {field.name for field in dataclasses.fields(record) if HELP in field.metadata}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def main(argv: list[str] | None = None) -> int:
    """Run a training stage; returns the exit status."""
    args = parser().parse_args(argv)
    try:
        return train(args)
    except (ValueError, OSError) as error:
        print(f"Error: {said(error)}", file=sys.stderr)
        return 2


def train(args: argparse.Namespace, provenance: Mapping[str, Any] | None = None) -> int:
    """Do the run that options of `add_training_options` describe; returns the exit status.

    Args:
        args: with `stage`.
        provenance: what the checkpoint says of itself besides, from the first save on.

    Raises:
        ValueError: an option, the data or a checkpoint does not fit.
        OSError: something cannot be read or written.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with joined(device) as (world, own):
        return _train(args, own, world, provenance or {})


def _train(
    args: argparse.Namespace, device: torch.device, world: World, provenance: Mapping[str, Any]
) -> int:
    config = TrainingConfig(**values_of(TrainingConfig, args))
    out = Path(config.out)
    check_folder(out, args.resume)
    model = _model(args, config)
    told = model.config.provenance | dict(provenance)
    model.config = dataclasses.replace(model.config, provenance=told)
    trainer = Trainer(config, model, device, world)
    if args.resume:
        trainer.resume()
    # Where all processes meet; one that found nothing in the folder has done so before it is made.
    world.share(trainer.replicated())
    if world.is_first:
        if args.resume:
            _tell_changes(trainer)
        out.mkdir(parents=True, exist_ok=True)
        _record(trainer)
    # A scheduler's SIGTERM ends a run as Ctrl-C does: with a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with progress_bar(config.stage) if world.is_first else nullcontext(_say_nothing) as report:
        finished = run(trainer, report)
    _describe(trainer)
    if world.is_first:
        _finish(trainer, out)
        if not finished:
            print("Interrupted; continue with --resume.", file=sys.stderr)
    return 0 if finished else INTERRUPTED


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that is not what the command needs.

    Raises:
        TrainingError: it holds a run that is not to be resumed, or none.
    """
    state = out / STATE
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file; choose another --out")
    if state.exists() and not resume:
        raise TrainingError(f"{out} holds a run: pass --resume to continue it, or another --out")
    if resume and not state.exists():
        raise TrainingError(f"{out} holds no run to resume; leave out --resume to begin one")


def _say_nothing(_: dict[str, float]) -> None:
    """Only the first of many processes reports."""


def _finish(trainer: Trainer, out: Path) -> None:
    if plot_losses(out):
        print(f"Losses: {out / 'loss.png'}")
    print(f"Weights: {out / 'model'} after {trainer.step} steps, {trainer.seconds / 60:.1f} min")


def _model(args: argparse.Namespace, config: TrainingConfig) -> ADiT:
    kept = Path(config.out) / "model"
    if args.resume and config.stage != "autoencoder" and not (args.init or args.autoencoder):
        return ADiT.from_pretrained(kept, device="cpu")
    if args.init is None and config.decoder_only:
        raise TrainingError("--decoder-only refines a checkpoint: pass --init CHECKPOINT")
    if args.init is None:
        return initial_model(config, architecture(args), args.autoencoder, args.condition)
    _check_stage(args)
    fixed = [_option(name) for name in _given(args) if name not in CHANGEABLE]
    if fixed:
        raise TrainingError(
            f"{', '.join(fixed)}: the network is that of --init {args.init}; leave them out. "
            f"Known beside --init: {', '.join(map(_option, CHANGEABLE))}."
        )
    name = args.name or ADiTConfig.name
    model = continued_model(config, args.init, name, args.pair_bias, args.latents, args.condition)
    return _changed(model, args)


def _changed(model: ADiT, args: argparse.Namespace) -> ADiT:
    """Give a model the options that change nothing but how it is trained."""
    first = dataclasses.replace(model.config.autoencoder, **changes_of(AutoencoderConfig, args))
    flow = dataclasses.replace(model.config.flow, **changes_of(FlowConfig, args))
    model.config = dataclasses.replace(model.config, autoencoder=first, flow=flow)
    model.autoencoder.config = first
    return model


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What is recorded of a run, as JSON has it."""
    settings = dataclasses.asdict(trainer.config) | {"processes": trainer.world.size}
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found


def _tell_changes(trainer: Trainer) -> None:
    """Say which settings differ from those that the run has had so far."""
    try:
        before = json.loads((Path(trainer.config.out) / SETTINGS).read_text())
    except (OSError, ValueError):
        return
    for name, value in _settings(trainer).items():
        if name in before and before[name] != value:
            option = name if name == "processes" else _option(name)
            print(f"{option}: {before[name]} until here, {value} from here on")


def _record(trainer: Trainer) -> None:
    with replacing(Path(trainer.config.out) / SETTINGS) as temporary:
        temporary.write_text(json.dumps(_settings(trainer), indent=2))


def _describe(trainer: Trainer) -> None:
    """Put data, budget and hardware into the checkpoint's own configuration."""
    model: ADiT = trainer.model
    gpu = torch.cuda.get_device_name() if trainer.device.type == "cuda" else ""
    entry: dict[str, Any] = {
        "data": [
            {"name": d.name, "source": d.source, "structures": len(d.num_atoms)}
            for d in trainer.data
        ],
        "steps": trainer.step,
        "minutes": round(trainer.seconds / 60, 1),
        "tokens_per_step": trainer.tokens_per_step,
        "precision": trainer.precision,
        "hardware": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
    }
    if trainer.world.size > 1:
        entry["processes"] = trainer.world.size
    provenance = model.config.provenance | {trainer.config.stage: entry}
    model.config = dataclasses.replace(model.config, provenance=provenance)
    trainer.save(wait=True)
