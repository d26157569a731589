"""The All-atom Diffusion Transformer: network, sampling, training. Needs torch and safetensors."""

from adit_model.batch import AtomBatch
from adit_model.config import ADiTConfig
from adit_model.model import ADiT

__all__ = ["ADiT", "ADiTConfig", "AtomBatch"]
