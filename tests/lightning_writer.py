"""Writes a Lightning-shaped checkpoint whose pickle names classes that the reader does not have.

Run as a script in a process of its own: `python lightning_writer.py WEIGHTS.npz FOLDER`.
The classes below live in modules made up here, as the published file's live in its research code.
"""

from __future__ import annotations

import collections
import enum
import functools
import sys
import types
from typing import Any

import numpy as np
import torch


def _module(name: str) -> types.ModuleType:
    for i in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:i])
        sys.modules.setdefault(part, types.ModuleType(part))
    return sys.modules[name]


def _foreign(module: str, name: str, base: type = object) -> Any:
    made = type(name, (base,), {"__module__": module})
    setattr(_module(module), name, made)
    return made


def hyper_parameters() -> dict[str, Any]:
    """Objects of the kinds that such files hold."""
    module = _foreign("src.models.ldm_module", "LatentDiffusionLitModule")()
    module.nested = {"depth": 12, "inner": [module]}  # a cycle
    config = _foreign("omegaconf.dictconfig", "DictConfig")()
    config._content = {"lr": 1e-4}
    attributes = _foreign("lightning.fabric.utilities.data", "AttributeDict", dict)(lr=1e-4)
    color = enum.Enum("Stage", "FIT TEST", module="src.stages")
    _module("src.stages").Stage = color
    return {
        "denoiser": module,
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.0),
        "config": config,
        "attributes": attributes,
        "stage": color.FIT,
        "scalar": np.float64(0.25),
        "names": {"a", "b"},
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([2, 3]),
    }


def checkpoint(weights: dict[str, np.ndarray], averages: str) -> dict[str, Any]:
    """Everything that a trainer saves; EMA weights (twice the weights) in one of three places."""
    state = collections.OrderedDict(
        (name, torch.nn.Parameter(torch.from_numpy(value)))
        for name, value in sorted(weights.items())
    )
    denoiser = [name for name in state if name.startswith("denoiser.")]
    state["autoencoder.loss_weights_mp20"] = torch.ones(5)
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    optimizer: dict[str, Any] = {
        "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}
    }
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "optimizer_states": [optimizer],
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1)}},
        "hyper_parameters": hyper_parameters(),
    }
    doubled = {name: state[name].detach() * 2 for name in denoiser}
    if averages == "optimizer":
        optimizer["ema"] = tuple(doubled.values())
    elif averages == "callback":
        content["callbacks"]["EMA"] = {"ema_weights": list(doubled.values()), "cur_step": 5}
    elif averages == "named":
        content["ema_state_dict"] = doubled
    return content


if __name__ == "__main__":
    with np.load(sys.argv[1]) as arrays:
        weights = dict(arrays)
    for averages in ("none", "optimizer", "callback", "named"):
        torch.save(checkpoint(weights, averages), f"{sys.argv[2]}/{averages}.ckpt")
