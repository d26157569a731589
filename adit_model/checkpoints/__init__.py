"""Weights on disk and back: folders of safetensors, published `.ckpt` files, the hub.

Add a form of checkpoint as a module here, chosen in `pretrained.read`. Nothing that a file
holds is run.
"""

from adit_model.checkpoints.folder import CheckpointError
from adit_model.checkpoints.pretrained import CheckpointNotice, read
from adit_model.checkpoints.published import export

__all__ = ["CheckpointError", "CheckpointNotice", "export", "read"]
