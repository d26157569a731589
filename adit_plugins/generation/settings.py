"""The fields of a generator, checked, and what they stand for where they are left open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from monty.json import MSONable

from adit_plugins._version import __version__
from adit_plugins.generation.composition import CompositionRequest, formula_text, system_text
from adit_plugins.generation.recipe import (
    PRECISIONS,
    check_sampler,
    checked_conditions,
    checked_guidance,
    checked_integer,
    last_change,
    load_model,
)
from adit_plugins.generation.steering import check_steering
from adit_plugins.structures.samples import KINDS

if TYPE_CHECKING:
    from ase import Atoms

    from adit_model import ADiT

MOST_GUIDANCE = 100  # checkpoints are best at 1 to 5; far beyond cells collapse to nothing


@dataclass
class Recipe(MSONable):
    """What samples are made by; `ADiTGenerator` describes each field.

    Raises:
        ValueError: a field has an impossible value; the message names the allowed ones.
    """

    kind: Literal["crystal", "molecule"] = "crystal"
    checkpoint: str | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    num_atoms: int | None = None
    batch_size: int | None = None
    device: str | None = None
    sampler: str = "ancestral"
    elements: list[str] | None = None
    exclude_elements: list[str] | None = None
    chemical_system: str | None = None
    formula: str | None = None
    contains: list[str] | None = None
    conditions: dict[str, float | int | None] | None = None
    condition_guidance: dict[str, float] | None = None
    elements_first: bool | None = None
    charge_balanced: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    steer: Callable[[Atoms], float] | str | None = None
    steer_weight: float | None = None
    particles: int = 4
    workers: int | None = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown kind {self.kind!r}. Known: {', '.join(KINDS)}.")
        # Plain integers, as those of numpy would not survive JSON.
        self.seed = checked_integer("seed", self.seed, 0)
        if self.num_steps is not None:
            self.num_steps = checked_integer("num_steps", self.num_steps, 1)
        if self.batch_size is not None:
            self.batch_size = checked_integer("batch_size", self.batch_size, 1)
        if self.workers is not None:
            self.workers = checked_integer("workers", self.workers, 0)
            if self.workers and callable(self.steer):
                raise ValueError("workers take a score by its name: steer='module:function'")
        if self.num_atoms is not None:
            self.num_atoms = checked_integer("num_atoms", self.num_atoms, 1)
        scale = self.guidance_scale
        if scale is not None:
            if not (isinstance(scale, Real) and 0 <= scale <= MOST_GUIDANCE):
                raise ValueError(
                    f"guidance_scale is {scale!r}; it must be a number from 0 to {MOST_GUIDANCE} "
                    "(1 is no guidance), or None for the checkpoint's own"
                )
            self.guidance_scale = float(scale)
        if self.sampler != "ancestral":  # a look at the rules imports torch
            check_sampler(self.sampler)
        if self.checkpoint is not None:
            self.checkpoint = str(self.checkpoint)  # a Path would not survive JSON
        self.chemical_system = system_text(self.chemical_system)
        self.formula = formula_text(self.formula)
        for name in ("elements", "exclude_elements", "contains"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"{name} must be a list of symbols; got {value!r}")
            setattr(self, name, None if value is None else [str(symbol) for symbol in value])
        if self.num_atoms is not None:
            self.composition.check_size(self.num_atoms, self.kind)
        else:
            _ = self.composition  # refuses impossible requests now
        self.conditions = checked_conditions(self.conditions)
        self.condition_guidance = checked_guidance(self.condition_guidance, self.conditions)
        check_steering(self)
        for name, allowed in (
            ("elements_first", (True, False, None)),
            ("charge_balanced", (True, False)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}"
            )
        if self.condition_guidance and self.elements_first is False:
            raise ValueError("condition_guidance leads the draw of elements; it needs them first")
        if self.charge_balanced and (self.kind != "crystal" or self.elements_first is False):
            raise ValueError(
                "charge_balanced draws compositions of crystals: it needs kind='crystal' and the "
                "elements first"
            )

    @property
    def composition(self) -> CompositionRequest:
        """The request on the samples' elements; false if there is none."""
        return CompositionRequest(
            None if self.elements is None else tuple(self.elements),
            None if self.exclude_elements is None else tuple(self.exclude_elements),
            self.chemical_system,
            self.formula,
            None if self.contains is None else tuple(self.contains),
        )

    @property
    def model(self) -> ADiT:
        """The network, loaded at the first use."""
        return load_model(self.checkpoint, self.device, last_change(self.checkpoint))

    def steps(self, kind: str | None = None) -> int:
        """How many steps samples of a kind (by default this one's) are made in."""
        if self.num_steps is not None:
            return self.num_steps
        return self.model.config.sampling_of(kind or self.kind).num_steps

    def guidance(self, kind: str | None = None) -> float:
        """The guidance scale that samples of a kind (by default this one's) are made with."""
        if self.guidance_scale is not None:
            return self.guidance_scale
        return self.model.config.guidance_scales.get(kind or self.kind, 1.0)

    def provenance(self, seed: int, index: int) -> dict[str, Any]:
        """What is recorded with sample `index` of a seed."""
        from adit_plugins.generation.drawing import described

        model = self.model
        return {
            "id": f"{model.name}/{seed}/{index}",
            "checkpoint": model.name,
            "checkpoint_hash": model.hash,
            "kind": self.kind,
            "seed": seed,
            "index": index,
            "num_steps": self.steps(),
            "guidance_scale": self.guidance(),
            "num_atoms": self.num_atoms,
            "sampler": self.sampler,
            "licence": model.config.provenance.get("licence", "not stated"),
            "version": __version__,
        } | described(self)
