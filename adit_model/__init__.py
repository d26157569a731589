"""The All-atom Diffusion Transformer: network, sampling, training. Needs torch and safetensors.

The public names are loaded on first use, so that `adit_model.outputs` costs no torch.

Add a condition (what a network is told and a sample can be asked for) as a label of the prepared
data (`data`): no code here knows its name. A new type of condition is a `type` of
`config.Condition`; what reads it is in `data`, `flow`, `denoiser`, `prior` and `samplers.request`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adit_model.batch import AtomBatch
    from adit_model.config import ADiTConfig
    from adit_model.model import ADiT

__all__ = ["ADiT", "ADiTConfig", "AtomBatch"]

_HOMES = {"ADiT": "model", "ADiTConfig": "config", "AtomBatch": "batch"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
