"""Fixtures that several test modules share."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
