"""An autoencoder whose latents turn with the structure: scalars and vectors, plain torch."""

from adit_model.autoencoder import Autoencoder
from adit_model.config import AutoencoderConfig
from adit_model.equivariant.autoencoder import EquivariantAutoencoder

__all__ = ["EquivariantAutoencoder", "make_autoencoder"]


def make_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """A new autoencoder of the configuration's architecture."""
    return (
        EquivariantAutoencoder(config)
        if config.architecture == "equivariant"
        else Autoencoder(config)
    )
