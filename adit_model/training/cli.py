"""Command line of `python -m adit_model.training`: options, progress and the loss plot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch

from adit_model.config import (
    SIZES,
    ADiTConfig,
    AutoencoderConfig,
    DenoiserConfig,
    FlowConfig,
    sized,
)
from adit_model.model import ADiT
from adit_model.outputs import replacing
from adit_model.training.options import add_options, values_of
from adit_model.training.stages import continued_model, initial_model, run
from adit_model.training.trainer import STAGES, Trainer, TrainingConfig, TrainingError

INTERRUPTED = 130  # the shell's exit status for Ctrl-C


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"Error: {message}. See: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """All options; defaults are those of the shipped release."""
    p = Parser(prog="adit train", description="Train a stage of ADiT on prepared data.")
    p.add_argument("stage", choices=STAGES)
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
    p.add_argument("--size", choices=sorted(SIZES), help="named denoiser size")
    p.add_argument("--width", type=int, help="of the stage's Transformer")
    p.add_argument("--depth", type=int, help="layers (autoencoder: encoder and decoder each)")
    p.add_argument("--encoder-depth", type=int, help="layers of the encoder, if fewer")
    p.add_argument("--num-heads", type=int)
    p.add_argument("--modulation", choices=("block", "shared"), help="default: block")
    p.add_argument(
        "--pair-bias",
        action=argparse.BooleanOptionalAction,
        help="attention of the denoiser also sees distances between atoms; default: on",
    )
    p.add_argument(
        "--latents",
        choices=("sample", "mean"),
        help="the denoiser's targets: the encoder's means (default) or drawn by it",
    )
    p.add_argument(
        "--condition",
        nargs="+",
        default=(),
        metavar="NAME",
        help="what the network is told besides: elements, or a label of the prepared data",
    )
    add_options(p, TrainingConfig)
    p.add_argument("--device", help="cpu, cuda, ...; by default CUDA if there is one")
    return p


def architecture(args: argparse.Namespace) -> ADiTConfig:
    """The configuration that the options describe."""
    width, depth, heads = sized(args.size) if args.size else (256, 6, 4)
    if args.stage == "autoencoder":
        if args.size:
            raise TrainingError(
                f"--size {args.size} names a denoiser; size an autoencoder by --width and --depth"
            )
        width, depth, heads = (128, 3, 4)
    width, depth = args.width or width, args.depth or depth
    heads = args.num_heads or heads
    autoencoder = AutoencoderConfig(
        width=width,
        num_heads=heads,
        encoder_depth=args.encoder_depth or depth,
        decoder_depth=depth,
        mlp_width=4 * width,
        lattice_input=True,
        input_frame="standard",
        frac_loss="plain",
    )
    denoiser = DenoiserConfig(
        width=width,
        depth=depth,
        num_heads=heads,
        modulation=args.modulation or "block",
        activation="gelu",
        time_scale=100.0,
        prediction="preconditioned",
        pair_bias=args.pair_bias is not False,
    )
    flow = FlowConfig(latents=args.latents or "mean")
    return ADiTConfig(
        name=args.name or "adit", autoencoder=autoencoder, denoiser=denoiser, flow=flow
    )


def main(argv: list[str] | None = None) -> int:
    """Run a training stage; returns the exit status."""
    args = parser().parse_args(argv)
    try:
        return _train(args)
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _train(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = TrainingConfig(**values_of(TrainingConfig, args))
    out = Path(config.out)
    state = out / "state.safetensors"
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file; choose another --out")
    if state.exists() and not args.resume:
        raise TrainingError(f"{out} holds a run: pass --resume to continue it, or another --out")
    if args.resume and not state.exists():
        raise TrainingError(f"{out} holds no run to resume; leave out --resume to begin one")
    model = _model(args, config)
    trainer = Trainer(config, model, device)
    if args.resume:
        trainer.resume()
        _tell_changes(config, out)
    out.mkdir(parents=True, exist_ok=True)
    _record(trainer, out)
    # A scheduler's SIGTERM ends a run as Ctrl-C does: with a checkpoint.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with progress_bar(config.stage) as report:
        finished = run(trainer, report)
    _describe(trainer)
    if plot_losses(out):
        print(f"Losses: {out / 'loss.png'}")
    print(f"Weights: {out / 'model'} after {trainer.step} steps, {trainer.seconds / 60:.1f} min")
    if not finished:
        print("Interrupted; continue with --resume.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _model(args: argparse.Namespace, config: TrainingConfig) -> ADiT:
    kept = Path(config.out) / "model"
    if args.resume and config.stage != "autoencoder" and not (args.init or args.autoencoder):
        return ADiT.from_pretrained(kept, device="cpu")
    if args.init is None:
        return initial_model(config, architecture(args), args.autoencoder, args.condition)
    sizes = ("size", "width", "depth", "encoder_depth", "num_heads", "modulation")
    given = [f"--{name.replace('_', '-')}" for name in sizes if getattr(args, name) is not None]
    if given:
        raise TrainingError(
            f"{', '.join(given)}: the sizes are those of --init {args.init}; leave them out"
        )
    name = args.name or ADiTConfig.name
    return continued_model(config, args.init, name, args.pair_bias, args.latents, args.condition)


def _tell_changes(config: TrainingConfig, out: Path) -> None:
    """Say which settings differ from those that the run has had so far."""
    try:
        before = json.loads((out / "training.json").read_text())
    except (OSError, ValueError):
        return
    for name, value in json.loads(json.dumps(dataclasses.asdict(config))).items():
        if name in before and before[name] != value:
            print(f"--{name.replace('_', '-')}: {before[name]} until here, {value} from here on")


def _record(trainer: Trainer, out: Path) -> None:
    with replacing(out / "training.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(trainer.config), indent=2))


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
        "tokens_per_step": sum(trainer.tokens),
        "precision": trainer.precision,
        "hardware": gpu or f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
    }
    provenance = model.config.provenance | {trainer.config.stage: entry}
    model.config = dataclasses.replace(model.config, provenance=provenance)
    trainer.save()


@contextmanager
def progress_bar(stage: str) -> Iterator[Callable[[dict[str, float]], None]]:
    """A rich bar on a terminal; plain lines elsewhere or without rich."""

    def text(row: dict[str, float]) -> str:
        losses = " ".join(f"{k} {v:.4f}" for k, v in row.items() if k.endswith("_loss"))
        return f"step {row['step']} {losses} {row['tokens_per_second']} atoms/s"

    if find_spec("rich") is None or not sys.stderr.isatty():
        yield lambda row: print(f"{row['progress']:5.1%} {text(row)}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(stage, total=1.0)
        yield lambda row: progress.update(task, completed=row["progress"], description=text(row))


def plot_losses(out: Path) -> bool:
    """Draw the losses of `log.jsonl` into `loss.png`; False without matplotlib or rows."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("No loss plot: pip install matplotlib", file=sys.stderr)
        return False
    log = out / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if not rows:
        return False
    figure, axes = plt.subplots()
    for name in sorted({k for row in rows for k in row if k.endswith("_loss")}):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    with replacing(out / "loss.png") as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    return True
