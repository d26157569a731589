"""Fixtures that several test modules share."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# Before torch is loaded: with tensors this small a second thread costs more than it gives, and many
# times as much where other programs want the processor.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A background job of a shell ignores Ctrl-C and hands that on to its children, to whom these tests
# send it; with a handler set here they begin with the default again.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_SIZES = {"crystal": [0, 2, 3, 4, 3, 2, 2, 1], "molecule": [0, 0, 1, 2, 3, 3, 3, 2, 1]}
TOY_SIZES = {"d": 128, "layers": 2, "dit": 192, "blocks": 2, "ff": 256}  # 2 and 3 heads
TINY_ELEMENTS = [1, 3, 6, 7, 8, 9, 11, 17]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an ADiT of random weights, named `tiny`: common elements, sane cells."""
    import torch

    from adit_model import ADiT, ADiTConfig
    from adit_model.config import AutoencoderConfig, DenoiserConfig

    config = ADiTConfig(
        name="tiny",
        autoencoder=AutoencoderConfig(
            width=32, num_heads=2, encoder_depth=1, decoder_depth=1, mlp_width=64
        ),
        denoiser=DenoiserConfig(width=32, depth=2, num_heads=2, time_features=32),
        size_histogram=TINY_SIZES,
    )
    torch.manual_seed(0)
    model = ADiT(config)
    with torch.no_grad():
        # A fresh denoiser predicts zero whatever the noise: all samples would be the same.
        for parameter in model.denoiser.parameters():
            parameter.normal_(std=0.1)
        # One constant feature for the lattice head alone, so that cells are of sane size.
        decoder = model.autoencoder.decoder
        decoder.transformer.norm.bias[0] = 10.0
        for head in (decoder.atom_types_head, decoder.pos_head, decoder.frac_coords_head):
            head.weight[:, 0] = 0.0
            head.weight *= 4.0
        decoder.atom_types_head.bias.fill_(-100.0)
        decoder.atom_types_head.bias[TINY_ELEMENTS] = 0.0
        decoder.lattice_head.weight[:3, 0] = 0.3  # times 10: 3 angstrom a cube root of atoms
        decoder.lattice_head.weight[3:, 0] = math.pi / 20
    folder = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def told_checkpoint(tiny_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`tiny` with a prior, and a denoiser that is told elements and properties; named `told`."""
    import dataclasses

    import torch

    from adit_model import ADiT
    from adit_model.config import Condition, PriorConfig

    old = ADiT.from_pretrained(tiny_checkpoint, device="cpu")
    assert old.config.denoiser is not None
    gap = Condition("band_gap", type="number", kinds=("crystal",), high=8.0, unit="eV")
    group = Condition("space_group", 230, kinds=("crystal",))
    elements = Condition("elements", 99, "atom_class", dropout=0.15)
    conditions = (*old.config.denoiser.conditions, elements, gap, group)
    config = dataclasses.replace(
        old.config,
        name="told",
        denoiser=dataclasses.replace(old.config.denoiser, conditions=conditions),
        prior=PriorConfig(
            32, 1, 2, max_atoms=8, conditions=(gap, group),
            elements={"crystal": [z for z in TINY_ELEMENTS if z > 1], "molecule": [1, 6, 7, 8, 9]},
        ),
    )  # fmt: skip
    torch.manual_seed(1)
    model = ADiT(config)
    with torch.no_grad():
        for network in (model.denoiser, model.prior):
            for parameter in network.parameters():
                parameter.normal_(std=0.1)
        for table in ("token", "mean", "first", "second"):  # 0, "not told", stays zero in training
            getattr(model.denoiser.condition_embedders["elements"], table).weight[0] = 0.0
        for embedder in model.prior.condition_embedders.values():
            for parameter in embedder.parameters():
                parameter.normal_(std=1.0)
    model.autoencoder.load_state_dict(old.autoencoder.state_dict())
    folder = tmp_path_factory.mktemp("told")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def found_campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a campaign with picks and with most reasons to leave a structure out."""
    from found_campaign import make_campaign

    folder = tmp_path_factory.mktemp("found")
    make_campaign(folder)
    return folder


@pytest.fixture(scope="session")
def prepared_crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from found_campaign import save_crystals

    path = tmp_path_factory.mktemp("data") / "crystals.safetensors"
    save_crystals(path)
    return path


@pytest.fixture(scope="session")
def prepared_molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from found_campaign import save_molecules

    path = tmp_path_factory.mktemp("data") / "molecules.safetensors"
    save_molecules(path)
    return path


@pytest.fixture(scope="session")
def toy_weights() -> dict[str, np.ndarray]:
    import published_reference

    return published_reference.random_weights(0, **TOY_SIZES)


@pytest.fixture(scope="session")
def lightning_files(
    toy_weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of checkpoints, written by a process that has the classes we do not have.

    `none.ckpt` has no averaged weights; the other names say where averages are kept.
    """
    folder = tmp_path_factory.mktemp("published")
    np.savez(folder / "weights.npz", **toy_weights)
    script = Path(__file__).with_name("lightning_writer.py")
    subprocess.run([sys.executable, script, folder / "weights.npz", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def toy_file(lightning_files: Path) -> Path:
    return lightning_files / "none.ckpt"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fresh_environment import build_wheel

    return build_wheel(tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a fresh environment that has the wheel, and not the checkout."""
    from fresh_environment import make_environment

    return make_environment(tmp_path_factory.mktemp("installed") / "env", wheel)
