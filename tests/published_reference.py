"""The published network in plain NumPy float64, written from its description, for parity tests.

Nothing here uses the package: names, shapes and arithmetic are spelled out once more, loop by
loop, on padded batches `[batch, atoms, ...]` with a mask.
"""

from __future__ import annotations

from itertools import pairwise
from math import pi

import numpy as np

LATENT = 8


def shapes(d: int, layers: int, dit: int, blocks: int, ff: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of both stages."""
    names: dict[str, tuple[int, ...]] = {"autoencoder.encoder.atom_type_embedder.weight": (100, d)}
    for part in ("pos_embedder", "frac_coords_embedder"):
        names[f"autoencoder.encoder.{part}.0.weight"] = (d, 3)
        names[f"autoencoder.encoder.{part}.2.weight"] = (d, d)
        names[f"autoencoder.encoder.{part}.2.bias"] = (d,)
    for part in ("encoder", "decoder"):
        for i in range(layers):
            at = f"autoencoder.{part}.transformer.layers.{i}"
            names |= attention(f"{at}.self_attn", d)
            names |= linear(f"{at}.linear1", d, ff) | linear(f"{at}.linear2", ff, d)
            for norm in ("norm1", "norm2"):
                names |= {f"{at}.{norm}.weight": (d,), f"{at}.{norm}.bias": (d,)}
        for end in ("weight", "bias"):
            names[f"autoencoder.{part}.transformer.norm.{end}"] = (d,)
    names["autoencoder.quant_conv.weight"] = (2 * LATENT, d)
    names["autoencoder.post_quant_conv.weight"] = (d, LATENT)
    names |= linear("autoencoder.decoder.atom_types_head", d, 100)
    names["autoencoder.decoder.pos_head.weight"] = (3, d)
    names["autoencoder.decoder.frac_coords_head.weight"] = (3, d)
    names["autoencoder.decoder.lattice_head.weight"] = (6, d)
    names |= linear("denoiser.x_embedder", 2 * LATENT, dit)
    names |= linear("denoiser.t_embedder.mlp.0", 256, dit)
    names |= linear("denoiser.t_embedder.mlp.2", dit, dit)
    names["denoiser.dataset_embedder.embedding_table.weight"] = (3, dit)
    names["denoiser.spacegroup_embedder.embedding_table.weight"] = (231, dit)
    for i in range(blocks):
        at = f"denoiser.blocks.{i}"
        names |= attention(f"{at}.attn", dit)
        names |= linear(f"{at}.mlp.fc1", dit, 4 * dit) | linear(f"{at}.mlp.fc2", 4 * dit, dit)
        names |= linear(f"{at}.adaLN_modulation.1", dit, 6 * dit)
    names |= linear("denoiser.final_layer.linear", dit, LATENT)
    return names | linear("denoiser.final_layer.adaLN_modulation.1", dit, 2 * dit)


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def attention(name: str, d: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.in_proj_weight": (3 * d, d),
        f"{name}.in_proj_bias": (3 * d,),
    } | linear(f"{name}.out_proj", d, d)


def random_weights(seed: int, **sizes: int) -> dict[str, np.ndarray]:
    """Weights of every name: normal, one over the root of the inputs; norms near one."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(**sizes).items():
        value = random.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) == 2 else 100)
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            value = 1 + value
        weights[name] = value.astype(np.float32)
    return weights


class Reference:
    """Both stages with given weights and numbers of heads."""

    def __init__(self, weights: dict[str, np.ndarray], heads: int, dit_heads: int) -> None:
        self.w = {name: value.astype(np.float64) for name, value in weights.items()}
        self.heads, self.dit_heads = heads, dit_heads

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def attend(self, name: str, x: np.ndarray, mask: np.ndarray, heads: int) -> np.ndarray:
        d = x.shape[-1]
        qkv = x @ self.w[f"{name}.in_proj_weight"].T + self.w[f"{name}.in_proj_bias"]
        out = np.zeros_like(x)
        for b in range(len(x)):
            for h in range(heads):
                cut = slice(h * d // heads, (h + 1) * d // heads)
                q, k, v = (qkv[b, :, i * d : (i + 1) * d][:, cut] for i in range(3))
                scores = q @ k.T / np.sqrt(d // heads)
                scores[:, ~mask[b]] = -np.inf
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[b][:, cut] = (scores / scores.sum(axis=1, keepdims=True)) @ v
        return self.linear(f"{name}.out_proj", out)

    def transformer(self, part: str, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        root, i = f"autoencoder.{part}.transformer", 0
        while f"{root}.layers.{i}.linear1.weight" in self.w:
            at = f"{root}.layers.{i}"
            x = x + self.attend(f"{at}.self_attn", self.norm(f"{at}.norm1", x), mask, self.heads)
            inner = gelu(self.linear(f"{at}.linear1", self.norm(f"{at}.norm2", x)))
            x = x + self.linear(f"{at}.linear2", inner)
            i += 1
        return self.norm(f"{root}.norm", x)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return layer_norm(x, 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def encode(
        self, numbers: np.ndarray, positions: np.ndarray, frac: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the latent."""
        x = self.w["autoencoder.encoder.atom_type_embedder.weight"][numbers]
        for name, value in (("pos_embedder", positions), ("frac_coords_embedder", frac)):
            at = f"autoencoder.encoder.{name}"
            x = x + self.linear(f"{at}.2", silu(self.linear(f"{at}.0", value)))
        x = self.transformer("encoder", x + index_embedding(*x.shape[1:]), mask)
        moments = self.linear("autoencoder.quant_conv", x)
        log_variance = np.clip(moments[..., LATENT:], -30, 20)
        return moments[..., :LATENT], np.exp(0.5 * log_variance)

    def decode(self, latent: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Logits, angstrom positions, fractional coordinates, lengths and angles (radians)."""
        x = self.linear("autoencoder.post_quant_conv", latent)
        x = self.transformer("decoder", x + index_embedding(*x.shape[1:]), mask)
        root = "autoencoder.decoder"
        count = mask.sum(axis=1, keepdims=True)
        mean = (x * mask[..., None]).sum(axis=1) / count
        lattice = self.linear(f"{root}.lattice_head", mean)
        return {
            "type_logits": self.linear(f"{root}.atom_types_head", x),
            "positions": self.linear(f"{root}.pos_head", x) * 10,
            "frac_coords": self.linear(f"{root}.frac_coords_head", x),
            "lengths": lattice[:, :3] * count ** (1 / 3),
            "angles": lattice[:, 3:],
        }

    def denoise(
        self, x: np.ndarray, t: float, label: int, previous: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Predicted clean latent at one time for one data set label."""
        angles = t * np.exp(-np.log(10000) * np.arange(128) / 128)
        time = np.concatenate([np.cos(angles), np.sin(angles)])
        time = self.linear(
            "denoiser.t_embedder.mlp.2", silu(self.linear("denoiser.t_embedder.mlp.0", time))
        )
        c = time + self.w["denoiser.dataset_embedder.embedding_table.weight"][label]
        c = silu(c + self.w["denoiser.spacegroup_embedder.embedding_table.weight"][0])
        h = self.linear("denoiser.x_embedder", np.concatenate([x, previous], axis=-1))
        h, i = h + index_embedding(*h.shape[1:]), 0
        while f"denoiser.blocks.{i}.mlp.fc1.weight" in self.w:
            at = f"denoiser.blocks.{i}"
            parts = np.split(self.linear(f"{at}.adaLN_modulation.1", c), 6)
            inner = layer_norm(h, 1e-6) * (1 + parts[1]) + parts[0]
            h = h + parts[2] * self.attend(f"{at}.attn", inner, mask, self.dit_heads)
            inner = layer_norm(h, 1e-6) * (1 + parts[4]) + parts[3]
            inner = self.linear(f"{at}.mlp.fc2", gelu(self.linear(f"{at}.mlp.fc1", inner)))
            h, i = h + parts[5] * inner, i + 1
        shift, scale = np.split(self.linear("denoiser.final_layer.adaLN_modulation.1", c), 2)
        out = self.linear("denoiser.final_layer.linear", layer_norm(h, 1e-6) * (1 + scale) + shift)
        return out * mask[..., None]

    def sample(
        self, noise: np.ndarray, label: int, steps: int, scale: float, mask: np.ndarray
    ) -> np.ndarray:
        """The published sampler's latent, from noise that is centred already."""
        times = np.linspace(0.01, 1, steps)
        x, previous = noise.astype(np.float64), np.zeros_like(noise, dtype=np.float64)

        def guided(t: float) -> np.ndarray:
            null = self.denoise(x, t, 0, previous, mask)
            return null + scale * (self.denoise(x, t, label, previous, mask) - null)

        for t, after in pairwise(times):
            previous = guided(t)
            x = x + (previous - x) / (1 - t) * (after - t)
        return guided(1.0)


def padded_noise(random: np.random.Generator, batch: int, atoms: int) -> np.ndarray:
    """Gaussian noise less its mean over the token axis, padding included, per structure."""
    noise = random.standard_normal((batch, atoms, LATENT))
    return (noise - noise.mean(axis=1, keepdims=True)).astype(np.float32)


def index_embedding(atoms: int, d: int) -> np.ndarray:
    angles = np.array([[i * pi / 2048 ** (2 * k / d) for k in range(d // 2)] for i in range(atoms)])
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def layer_norm(x: np.ndarray, eps: float) -> np.ndarray:
    mean = x.mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + eps)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    """The tanh approximation."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / pi) * (x + 0.044715 * x**3)))
