"""What a run shows while it goes on, and its losses as a picture at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from adit_model.outputs import replacing


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
