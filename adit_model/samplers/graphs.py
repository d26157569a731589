"""Calls of the denoiser on an NVIDIA GPU as one launch instead of hundreds.

A batch of one size makes the same call at every step. CUDA records its kernels once, as a graph,
and replays them; otherwise the processor would start them one by one, which takes longer than the
GPU needs for them.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from adit_model.denoiser import Denoiser, Part

Call = tuple[bool, Part | None, tuple[str, ...]]  # what decides which kernels run
Inputs = dict[str, Tensor]


class Replayed:
    """A denoiser for the steps of one batch: same shapes, same device, no gradients.

    The first call of a form runs as it is, the second is recorded, all further ones are replayed.
    Where recording fails, all calls run as they are.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.config = denoiser.config
        self.graphs: dict[Call, _Graph | None] = {}
        self.recording = True

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        labels: dict[str, Tensor],
        previous: Tensor | None = None,
        without: Part | None = None,
    ) -> Tensor:
        """As `Denoiser.forward`, without padding."""
        call = (previous is None, without, tuple(labels))
        inputs = {"x": x, "t": t, **labels}
        if previous is not None:
            inputs["previous"] = previous
        if call in self.graphs and self.recording:
            graph = self.graphs[call] or self._recorded(call, inputs)
            if graph is not None:
                return graph.replay(inputs)
        self.graphs.setdefault(call, None)
        return self.denoiser(x, t, labels, previous, without=without)

    def _recorded(self, call: Call, inputs: Inputs) -> _Graph | None:
        _, without, labels = call
        try:
            graph = self.graphs[call] = _Graph(self.denoiser, inputs, labels, without)
        except RuntimeError as error:  # an old driver, a build without graphs, too little memory
            self.recording = False
            self.graphs = dict.fromkeys(self.graphs)  # whose memory is needed now
            reason = str(error).splitlines()[0]
            warnings.warn(f"the GPU's kernels are not recorded ({reason}): slower", stacklevel=2)
            return None
        return graph


class _Graph:
    """One recorded call, with the places in memory that it reads from and writes to."""

    def __init__(
        self, denoiser: Denoiser, inputs: Inputs, labels: tuple[str, ...], without: Part | None
    ) -> None:
        self.inputs = {name: values.clone() for name, values in inputs.items()}
        self.graph: Any = torch.cuda.CUDAGraph()
        # The casts of weights to bf16 belong to the graph: autocast's cache of them is emptied by
        # any thread that leaves autocast. Other threads may use the GPU meanwhile.
        lower = torch.is_autocast_enabled("cuda")
        with (
            torch.autocast("cuda", torch.bfloat16, enabled=lower, cache_enabled=False),
            torch.cuda.graph(self.graph, capture_error_mode="thread_local"),
        ):
            self.output = denoiser(
                self.inputs["x"],
                self.inputs["t"],
                {name: self.inputs[name] for name in labels},
                self.inputs.get("previous"),
                without=without,
            )

    def replay(self, inputs: Inputs) -> Tensor:
        """The call's result for other values."""
        for name, values in inputs.items():
            self.inputs[name].copy_(values)
        self.graph.replay()
        return self.output.clone()  # the next call writes to the same place
