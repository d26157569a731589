"""Fixtures that several test modules share."""

from __future__ import annotations

import pytest

TINY_SIZES = {"crystal": [0, 2, 3, 4, 3, 2, 2, 1], "molecule": [0, 0, 1, 2, 3, 3, 3, 2, 1]}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an untrained ADiT of a few thousand weights, named `tiny`."""
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
    folder = tmp_path_factory.mktemp("tiny")
    ADiT(config).save_pretrained(folder)
    return str(folder)
