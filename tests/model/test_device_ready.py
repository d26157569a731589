"""What a GPU would run, as far as a CPU can tell: syncs, masks, noise, precision, generators."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import TINY, make_data
from torch.utils._python_dispatch import TorchDispatchMode

from adit_model import ADiT
from adit_model import autoencoder as autoencoder_module
from adit_model.autoencoder import reconstruction_errors
from adit_model.config import DenoiserConfig
from adit_model.denoiser import Denoiser
from adit_model.layers import Attention
from adit_model.samplers import Request, SamplingSettings
from adit_model.samplers import run as sampler_run
from adit_model.samplers.graphs import Replayed
from adit_model.samplers.run import CPU_BYTES, bytes_of, noise_source, structures_at_once
from adit_model.training.cli import main
from adit_model.training.stages import continued_model, initial_model
from adit_model.training.trainer import Trainer, TrainingConfig

# Operators that hand a number from the device to Python, for which the device has to be waited for.
WAITING = {"aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.equal", "aten.nonzero"}


class Waits(TorchDispatchMode):
    """Counts operators for which a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rsplit(".", 1)[0]
        if name in WAITING:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Casts(TorchDispatchMode):
    """Counts casts of a model's weights to bf16."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.weights = {p.data_ptr() for p in model.parameters()}
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("dtype") is torch.bfloat16 and args[0].data_ptr() in self.weights:
            self.number += 1
        return func(*args, **kwargs)


def test_the_counter_sees_a_number_that_is_read() -> None:
    with Waits() as waits:
        bool((torch.ones(3) > 0).all())
        float(torch.ones(3).sum())
    assert sum(waits.found.values()) == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("device")
    data = make_data(folder)
    out = str(folder / "one")
    assert main(["autoencoder", "--data", *data, "--out", out, "--steps", "2", *TINY]) == 0
    return folder, data


def trainer(folder: Path, data: list[str], stage: str, **options: Any) -> Trainer:
    from adit_model.training.cli import architecture, parser

    out = folder / f"{stage}-{options.get('distance_loss', 0)}"
    args = parser().parse_args([stage, "--data", *data, "--out", str(out), *TINY])
    config = TrainingConfig(stage, tuple(data), str(out), tokens=64, steps=9, **options)
    first = folder / "one" / "model"
    model = initial_model(
        config, architecture(args), None if stage == "autoencoder" else first, ["elements"]
    )
    return Trainer(config, model, torch.device("cpu"))


@pytest.mark.parametrize(
    ("stage", "options"), [("autoencoder", {}), ("denoiser", {"distance_loss": 0.1})]
)
def test_a_training_step_waits_for_nothing(
    trained: tuple[Path, list[str]], stage: str, options: dict[str, Any]
) -> None:
    run = trainer(*trained, stage, **options, precision="float32")
    run.train_step()
    inside: Counter[str] = Counter()
    for number, optimizer in enumerate(run.optimizers):  # torch's own step counts on the host
        optimizer.step = lambda number=number: inside.update([str(number)])  # type: ignore
    with Waits() as waits:
        run.train_step()
    assert len(inside) == len(run.optimizers)
    assert not waits.found, waits.found


def test_the_sampling_loop_waits_for_nothing(told_checkpoint: str) -> None:
    model = ADiT.from_pretrained(told_checkpoint, device="cpu")
    settings = SamplingSettings(num_steps=6)
    with Waits() as waits:
        model.draw(3, "crystal", settings, elements=[[3, 8, 9]] * 3)
    few = sum(waits.found.values())
    with Waits() as waits:
        model.draw(3, "crystal", SamplingSettings(num_steps=30), elements=[[3, 8, 9]] * 3)
    assert sum(waits.found.values()) == few  # none of them a step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_replayed_calls_give_what_started_ones_give(
    precision: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ADiT.from_pretrained(device="cuda")
    settings = SamplingSettings(8, scale, "heun", precision=precision)
    replayed = model.draw(64, "molecule", settings).batch
    monkeypatch.setattr(sampler_run, "Replayed", lambda denoiser: denoiser)
    started = model.draw(64, "molecule", settings).batch
    torch.testing.assert_close(replayed.positions, started.positions, atol=0, rtol=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU records")
def test_where_calls_cannot_be_recorded_they_run(told_checkpoint: str) -> None:
    denoiser = ADiT.from_pretrained(told_checkpoint, device="cpu").denoiser
    assert denoiser is not None
    replayed = Replayed(denoiser)
    x, t = torch.randn(2, 3, 8), torch.full((2,), 0.5)
    labels = {"kind": torch.ones(2, dtype=torch.long)}
    with torch.no_grad():
        wanted = denoiser(x, t, labels)
        torch.testing.assert_close(replayed(x, t, labels), wanted)
        with pytest.warns(UserWarning, match="not recorded"):
            torch.testing.assert_close(replayed(x, t, labels), wanted)
        torch.testing.assert_close(replayed(x, t, labels), wanted)


def test_a_budget_of_memory_bounds_a_batch() -> None:
    config = DenoiserConfig(width=256, depth=6, num_heads=4, pair_bias=True)
    cpu = torch.device("cpu")
    rows = [structures_at_once(size, config, cpu) for size in (1, 5, 20, 60, 10_000)]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == 1
    for size, most in zip((1, 5, 20), rows, strict=False):
        assert most * bytes_of(size, config) <= CPU_BYTES < (most + 1) * bytes_of(size, config)


def test_bf16_takes_the_weights_once_for_all_steps(told_checkpoint: str) -> None:
    model = ADiT.from_pretrained(told_checkpoint, device="cpu")
    weights = sum(p.dim() > 1 for p in model.parameters())

    def casts(num_steps: int) -> int:
        settings = SamplingSettings(num_steps, precision="bfloat16")
        with Casts(model) as found:
            model.draw(3, "crystal", settings, elements=[[3, 8, 9]] * 3)
        return found.number

    assert 0 < casts(2) == casts(9) <= weights


def test_masks_of_fused_attention_are_contiguous() -> None:
    torch.manual_seed(0)
    config = DenoiserConfig(width=32, depth=2, num_heads=2, pair_bias=True)
    denoiser = Denoiser(config)
    tokens, condition = torch.randn(3, 5, 16), torch.randn(3, 32)
    biases, _ = denoiser.pairs(tokens, condition, None)
    for bias in biases:
        assert bias.stride(-1) == 1
        assert bias.to(torch.bfloat16).stride(-1) == 1


class _Elsewhere(torch.Tensor):
    """A CPU tensor that says it is on a GPU, for the branch that only GPUs take."""

    @property
    def device(self) -> Any:  # type: ignore[override]
        return torch.device("cuda")


def test_fused_attention_gives_what_plain_attention_gives() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 2)
    x = torch.randn(3, 5, 32)
    bias = torch.randn(3, 2, 5, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[0, 3:] = False
    for some_bias in (None, bias):
        for some_mask in (None, mask):
            plain = attention(x, some_mask, some_bias)
            fused = attention(x.as_subclass(_Elsewhere), some_mask, some_bias)
            keep = slice(None) if some_mask is None else mask
            torch.testing.assert_close(torch.Tensor(fused)[keep], plain[keep], atol=1e-5, rtol=1e-5)


def test_noise_drawn_at_once_is_noise_drawn_step_by_step(told_checkpoint: str) -> None:
    model = ADiT.from_pretrained(told_checkpoint, device="cpu")
    request = Request.checked(
        model.config, 3, "crystal", SamplingSettings(num_steps=5), num_atoms=4, seed=7
    )
    draw = noise_source(request, [2, 0], 4, 5, torch.device("cpu"))
    streams = [np.random.default_rng([*request.streams[row], 1]) for row in (2, 0)]
    for t in (0.1, 0.5, 0.9):
        wanted = [s.standard_normal((4, 8), dtype=np.float32) for s in streams]
        deviation = next(size for until, size in request.sampling.fresh_noise if t <= until)
        np.testing.assert_array_equal(draw(t).numpy(), np.float32(deviation) * np.stack(wanted))


def test_bfloat16_leaves_the_geometry_in_float32(
    trained: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets of training that are off by hundredths of an angstrom would be learned as such."""
    run = trainer(*trained, "autoencoder", precision="bfloat16")
    autoencoder = run.model.autoencoder
    seen: dict[str, list[Any]] = {"batch": [], "target": [], "decoded": []}
    loss, embedded = autoencoder.loss, autoencoder.encoder._embedded

    def recorded_loss(batch: Any, *args: Any, **options: Any) -> Any:
        seen["batch"].append(batch)
        return loss(batch, *args, **options)

    def recorded_errors(decoded: Any, batch: Any, config: Any) -> Any:
        seen["target"].append(autoencoder_module.standard_frame(batch))
        seen["decoded"].append(decoded)
        return reconstruction_errors(decoded, batch, config)

    def recorded_features(batch: Any) -> Any:
        x = embedded(batch)
        assert x.dtype == torch.float32
        assert (x != x.to(torch.bfloat16).float()).any()
        return x

    monkeypatch.setattr(autoencoder, "loss", recorded_loss)
    monkeypatch.setattr(autoencoder.encoder, "_embedded", recorded_features)
    monkeypatch.setattr(autoencoder_module, "reconstruction_errors", recorded_errors)
    run.train_step()
    stored = run.data[0].cell
    assert stored is not None
    crystals = seen["batch"][0]
    for batch in (crystals, seen["target"][0]):
        lengths = batch.lattice.norm(dim=-1)
        nearest = (lengths[:, None] - stored[None, :, :3]).abs().amax(dim=2).amin(dim=1)
        assert nearest.max() < 1e-4  # angstrom; under bf16 0.02
        torch.testing.assert_close(batch.positions, batch.frac_coords @ batch.lattice)
    for decoded in seen["decoded"]:
        for values in (decoded.lengths, decoded.positions, decoded.frac_coords):
            assert values.dtype == torch.float32
            assert (values != values.to(torch.bfloat16).float()).any()
    water = seen["target"][1].positions
    bonds = (water[:, 1] - water[:, 0]).norm(dim=-1)
    torch.testing.assert_close(bonds, torch.full_like(bonds, 0.968297), atol=1e-4, rtol=0)


def test_variations_use_a_generator_of_the_batch_s_device(told_checkpoint: str) -> None:
    import dataclasses

    model = ADiT.from_pretrained(told_checkpoint, device="cpu")
    flow = dataclasses.replace(model.config.flow, molecule_frame="random")
    model.config = dataclasses.replace(model.config, flow=flow)
    made: list[torch.device] = []
    real = torch.Generator

    def recorded(device: Any = "cpu") -> torch.Generator:
        made.append(torch.device(device))
        return real(device)

    batch = model.sample(2, "molecule", 2, num_atoms=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "Generator", recorded)
        model.vary(batch, 0.5, num_steps=2)
    assert made == [batch.device]


def test_a_condition_is_added_without_changing_anything(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, data = trained
    out = str(tmp_path / "plain")
    begin = ["denoiser", "--data", *data, "--out", out, "--steps", "2", *TINY]
    assert main([*begin, "--autoencoder", str(folder / "one" / "model")]) == 0
    old = ADiT.from_pretrained(tmp_path / "plain" / "model", device="cpu")
    config = TrainingConfig("denoiser", tuple(data), str(tmp_path / "told"), steps=1)
    new = continued_model(
        config, str(tmp_path / "plain" / "model"), "told", conditions=["elements"]
    )
    assert new.tells_elements and not old.tells_elements
    x, t = torch.randn(2, 3, 8), torch.full((2,), 0.4)
    labels = {"kind": torch.ones(2, dtype=torch.long)}
    told = labels | {"elements": torch.tensor([[1, 8, 8]] * 2)}
    assert old.denoiser is not None and new.denoiser is not None
    plain = old.denoiser(x, t, labels)
    torch.testing.assert_close(new.denoiser(x, t, told), plain)


def test_the_speed_of_sampling_is_measured_with_torch_alone(
    told_checkpoint: str, tmp_path: Path
) -> None:
    """So that it runs on a bare machine with a GPU."""
    script = Path(__file__).parents[2] / "benchmarks" / "sampling_speed.py"
    out = tmp_path / "speed.json"
    options = ["--num", "3", "--num-steps", "2", "--json", str(out), "--device", "cpu"]
    options += ["--precision", "float32"]  # products in bf16 take minutes on some processors
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[str(script), '--checkpoint', told_checkpoint, *options]!r}\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: print('modules:', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split("modules:")[1].split())
    assert "adit_model" in modules
    assert not modules & {"adit_plugins", "ase", "click", "monty", "pymatgen", "rdkit", "scipy"}
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 2
    assert all(row["structures"] == 3 and row["structures_per_second"] > 0 for row in rows)
