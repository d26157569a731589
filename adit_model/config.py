"""Frozen configurations that describe a network completely, with a JSON round trip.

`RECIPE` is what training begins with; `published()` is the architecture of arXiv 2503.03965. A
field made by `option` is an option of `adit train`, too.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from adit_model.checked import Checked, option
from adit_model.sampling import (
    BEFORE_SAMPLING_WAS_RECORDED,
    KindSampling,
    check_histogram,
    check_scales,
    kinds_sampling,
)

KINDS = ("crystal", "molecule")  # the class labels of the first condition, from 1; 0 is "none"
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}  # width, depth, heads


@dataclass(frozen=True)
class AutoencoderConfig(Checked):
    """Sizes and options of the variational autoencoder."""

    width: int = option(512, "of the stage's Transformer")
    num_heads: int = option(8, "heads of its attention")
    encoder_depth: int = option(8, "layers of the encoder; --depth if that is given")
    decoder_depth: int = option(8, "layers of the decoder; --depth if that is given")
    mlp_width: int = option(2048, "of the autoencoder's MLPs; four times --width if that is given")
    latent_dim: int = option(8, "numbers an atom in the latent space")
    num_types: int = 100  # atomic numbers 0..99; 0 is never a real atom
    # The coordinates of one or two atoms cannot determine the cell, so it may enter as well.
    lattice_input: bool = option(False, "the encoder sees the cell, too")
    # "standard": molecules enter centred, crystals in the orientation of their cell parameters,
    # with fractional coordinates in [-0.02, 0.98) so that numerical zeros do not split in two.
    input_frame: Literal["given", "standard"] = option(
        "given", "what is encoded: as it is, or turned and shifted in one way"
    )
    frac_loss: Literal["plain", "wrapped"] = option(
        "plain", "wrapped: the loss of fractional coordinates counts the nearest periodic image"
    )
    architecture: Literal["transformer", "equivariant"] = option(
        "transformer",
        "equivariant: latents turn with the structure",  # `adit_model.equivariant`
    )
    latent_vectors: int = option(2, "vectors among the latent's numbers, if equivariant")
    vector_width: int = option(32, "vector channels of the layers, if equivariant")
    cutoff: float = option(6.0, "of the encoder's neighbours, angstrom, if equivariant")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cutoff <= 0:
            raise ValueError(f"cutoff must be above 0 angstrom; got {self.cutoff!r}")
        if self.architecture == "equivariant" and self.latent_dim <= 3 * self.latent_vectors:
            needed = f"{1 + 3 * self.latent_vectors}, a scalar and {self.latent_vectors} vectors"
            raise ValueError(f"latent_dim must be at least {needed}; got {self.latent_dim}")


MAX_ATOMIC_NUMBER = 99  # of `AutoencoderConfig.num_types`
KIND = "kind"  # the first condition
ELEMENTS = "elements"  # the condition whose labels are the atomic numbers themselves


@dataclass(frozen=True)
class Condition(Checked):
    """What a network can be told of a structure, besides the noise.

    Attributes:
        name: also the name of the label in prepared data and in requests. Labels of `"elements"`
            are the atomic numbers.
        size: classes are 1..size, 0 meaning "not told"; 1 for numbers.
        type: `"class"` (one of the structure), `"number"` (one of the structure, NaN meaning "not
            told") or `"atom_class"` (one of each atom).
        dropout: share of training structures that it is withheld from, so that the network also
            works without.
        kinds: the kinds that have it, of `KINDS`; all by default.
        low, high: range of a number in the training data; requests outside are refused.
        unit: of a number.
    """

    name: str
    size: int = 1
    type: Literal["class", "number", "atom_class"] = "class"
    dropout: float = 0.0
    kinds: tuple[str, ...] = KINDS
    low: float = 0.0
    high: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise ValueError(f"a condition's name must be an identifier; got {self.name!r}")
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            raise ValueError(f"kinds of {self.name!r} must be some of {KINDS}; got {self.kinds!r}")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout of {self.name!r} must be 0 to 1; got {self.dropout!r}")
        if not self.low < self.high:
            raise ValueError(
                f"the range of {self.name!r} must rise; got low={self.low!r}, high={self.high!r}"
            )


def _default_conditions() -> tuple[Condition, ...]:
    return (Condition("kind", len(KINDS), dropout=0.1),)


@dataclass(frozen=True)
class DenoiserConfig(Checked):
    """Sizes and options of the diffusion transformer."""

    width: int = option(384, "of the stage's Transformer")
    depth: int = option(12, "layers (autoencoder: encoder and decoder each)")
    num_heads: int = option(6, "heads of its attention")
    mlp_ratio: int = option(4, "width of the denoiser's MLPs in widths")
    latent_dim: int = 8
    time_features: int = option(256, "in which the denoiser sees the time")
    modulation: Literal["block", "shared"] = option(
        "block", "shared: one modulation for all blocks, 30 %% fewer weights at size S"
    )
    self_conditioning: bool = option(True, "the denoiser sees its previous prediction")
    # "gelu" is the exact form, which is faster on CPUs than the published tanh approximation.
    activation: Literal["gelu_tanh", "gelu"] = option("gelu_tanh", "of the denoiser's MLPs")
    # The published network sees t in [0, 1] itself; a scale resolves late times better.
    time_scale: float = option(1.0, "what the time is multiplied by before the denoiser sees it")
    # "x1": the output is the clean latent. "preconditioned": the output is added to a share of
    # the noisy latent (EDM, arXiv 2206.00364, eq. 7), which keeps fine detail at late times.
    prediction: Literal["x1", "preconditioned"] = option("x1", "what the denoiser's output is")
    # Attention also sees distances between atoms, read from their latents (`adit_model.pairs`).
    pair_bias: bool = option(False, "attention of the denoiser also sees distances between atoms")
    conditions: tuple[Condition, ...] = field(default_factory=_default_conditions)

    def __post_init__(self) -> None:
        super().__post_init__()
        conditions = _as_conditions(self.conditions)
        object.__setattr__(self, "conditions", conditions)
        names = [c.name for c in conditions]
        if len(set(names)) < len(names):
            raise ValueError(f"conditions must have different names; got {', '.join(names)}")
        if not conditions or conditions[0].size != len(KINDS) or conditions[0].type != "class":
            raise ValueError(
                f"the first condition must be the kind, with {len(KINDS)} classes {KINDS}; "
                f"got {conditions[:1]}"
            )


@dataclass(frozen=True)
class PriorConfig(Checked):
    """Sizes and options of the prior over elements (`adit_model.prior`)."""

    width: int = 128
    depth: int = 3
    num_heads: int = 4
    max_atoms: int = 64
    num_elements: int = MAX_ATOMIC_NUMBER
    dropout: float = 0.1
    conditions: tuple[Condition, ...] = ()  # classes and numbers; the kind is always told
    # Atomic numbers in the training data by kind; others are never drawn.
    elements: dict[str, list[int]] = field(default_factory=dict)
    # Molecules of the training data list their heavy atoms first; requests keep to it.
    hydrogens_last: bool = True
    # Every molecule of the training data has an even number of electrons; so have those drawn,
    # unless a request rules it out. An odd one is a radical, whatever its geometry.
    even_electrons: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "conditions", _as_conditions(self.conditions))
        known = isinstance(self.elements, dict) and set(self.elements) <= set(KINDS)
        if not known or not all(isinstance(z, list) for z in self.elements.values()):
            raise ValueError(f"elements must be lists by kind {KINDS}; got {self.elements!r:.80}")
        if any(c.type == "atom_class" for c in self.conditions):
            raise ValueError("the prior can be told classes and numbers of a structure only")


def _as_conditions(conditions: Any) -> tuple[Condition, ...]:
    return tuple(c if isinstance(c, Condition) else Condition(**c) for c in conditions)


@dataclass(frozen=True)
class FlowConfig(Checked):
    """Options of the flow between noise and latents; recorded because samplers depend on them."""

    standardize_latents: bool = option(
        True, "latents get zero mean and unit variance a channel before the flow"
    )
    # The published flow does.
    center_noise: bool = option(False, "noise has no mean over a structure's atoms")
    # "logit_normal": more training where the structure forms; "uniform": the published choice.
    time_sampling: Literal["uniform", "logit_normal"] = option(
        "logit_normal", "how training times are drawn"
    )
    # Above 0 favours late times, where geometry settles.
    time_mean: float = option(0.6, "of logit(t), of training times")
    time_std: float = option(1.3, "of logit(t), of training times")
    # "principal": molecules are turned to their principal axes before encoding, so that the
    # denoiser need not learn every orientation; "random": rotated at random.
    molecule_frame: Literal["principal", "random"] = option(
        "principal", "how molecules are turned before they are encoded"
    )
    # "sample": the flow's targets are drawn from the encoder's distribution, as published; "mean":
    # its means, free of noise that no denoiser can predict and no decoder reads.
    latents: Literal["sample", "mean"] = option(
        "sample", "the denoiser's targets: the encoder's means, or drawn by it"
    )


@dataclass(frozen=True)
class ADiTConfig:
    """Everything but the weights of an `ADiT`."""

    name: str = "adit"
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    denoiser: DenoiserConfig | None = field(default_factory=DenoiserConfig)  # None: stage one
    flow: FlowConfig = field(default_factory=FlowConfig)
    prior: PriorConfig | None = None  # without it elements come with the geometry
    # Structures of 0, 1, 2, ... atoms in the training set, by kind; sizes are drawn from it.
    size_histogram: dict[str, list[int]] = field(default_factory=dict)
    # The measured best guidance by kind; samplers take it unless told otherwise. None is 1.
    guidance_scales: dict[str, float] = field(default_factory=dict)
    # How samples are made best, by kind; tuned to the weights.
    sampling: dict[str, KindSampling] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)  # data, steps, hardware, licence

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and not any(map(str.isspace, self.name))):
            raise ValueError(f"name must be text without spaces; got {self.name!r}")
        for part, kind in (("autoencoder", AutoencoderConfig), ("flow", FlowConfig)):
            if not isinstance(getattr(self, part), kind):
                raise ValueError(f"{part} must be an object; got {getattr(self, part)!r}")
        if not isinstance(self.provenance, dict):
            raise ValueError(f"provenance must be an object; got {self.provenance!r}")
        check_histogram(self.size_histogram, KINDS)
        check_scales(self.guidance_scales, KINDS)
        object.__setattr__(self, "sampling", kinds_sampling(self.sampling, KINDS))
        if self.denoiser is None:
            return
        if self.autoencoder.latent_dim != self.denoiser.latent_dim:
            raise ValueError(
                f"latent_dim differs: autoencoder {self.autoencoder.latent_dim}, "
                f"denoiser {self.denoiser.latent_dim}; use one number"
            )

    def sampling_of(self, kind: str) -> KindSampling:
        """How samples of a kind are made best."""
        return self.sampling.get(kind, KindSampling())

    @property
    def max_num_atoms(self) -> int:
        """The largest structure that this model was trained on (atoms)."""
        return max((len(h) - 1 for h in self.size_histogram.values()), default=0)

    def to_json(self) -> str:
        """Return the configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> ADiTConfig:
        """Rebuild a configuration.

        Raises:
            ValueError: the text is no JSON, or holds an unknown or missing field.
        """
        try:
            values = json.loads(text)
            if isinstance(values, dict):
                values.setdefault("sampling", BEFORE_SAMPLING_WAS_RECORDED)
            return _build(cls, values)
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"config.json does not describe an ADiT model: {error}") from error


_NESTED = {
    "autoencoder": AutoencoderConfig,
    "denoiser": DenoiserConfig,
    "flow": FlowConfig,
    "prior": PriorConfig,
}


def _build(cls: type, values: dict[str, Any]) -> Any:
    if not isinstance(values, dict):
        raise TypeError(f"expected an object for {cls.__name__}, got {type(values).__name__}")
    nested = {k: _build(_NESTED[k], v) for k, v in values.items() if k in _NESTED and v}
    values = values | nested
    return cls(**values)


RECIPE = ADiTConfig(
    autoencoder=AutoencoderConfig(
        width=128,
        num_heads=4,
        encoder_depth=3,
        decoder_depth=4,
        mlp_width=512,
        lattice_input=True,
        input_frame="standard",
    ),
    denoiser=DenoiserConfig(
        width=320,
        depth=8,
        num_heads=5,
        modulation="shared",
        activation="gelu",
        time_scale=100.0,
        prediction="preconditioned",
        pair_bias=True,
    ),
    flow=FlowConfig(latents="mean", time_mean=0.8, time_std=1.5),
)  # what `adit train` begins with, unless its options say otherwise


def published(size: str = "B") -> ADiTConfig:
    """The configuration of the published checkpoint with a denoiser of size S, B or L."""
    width, depth, heads = sized(size)
    return ADiTConfig(
        name=f"published-{size}",
        denoiser=DenoiserConfig(
            width=width,
            depth=depth,
            num_heads=heads,
            conditions=(Condition("kind", 2, dropout=0.1), Condition("space_group", 230)),
        ),
        flow=FlowConfig(
            standardize_latents=False,
            center_noise=True,
            time_sampling="uniform",
            molecule_frame="random",
        ),
        sampling=BEFORE_SAMPLING_WAS_RECORDED,
    )


def sized(size: str) -> tuple[int, int, int]:
    """Width, depth and heads of a named denoiser size.

    Raises:
        ValueError: the name is not known.
    """
    if size not in SIZES:
        raise ValueError(f"No denoiser size {size!r}. Known: {', '.join(SIZES)}.")
    return SIZES[size]
