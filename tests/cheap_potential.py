"""Relaxers in milliseconds, well- and ill-behaved, and structures for campaigns over them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from adit_plugins.relax.ase_relaxer import AseRelaxer
from adit_plugins.relax.results import RelaxResult

PAUSE = "CHEAP_POTENTIAL_SECONDS"
FLAG = "CHEAP_POTENTIAL_FLAG"
HELIUM, NEON = 2, 10


@dataclass
class Cheap(AseRelaxer):
    """Lennard-Jones; kills its process at helium and hangs at neon where it is told to."""

    deadly: bool = False
    once: str = ""

    def relax(self, batch: Sequence[Atoms], fmax: float, max_steps: int) -> list[RelaxResult]:
        time.sleep(float(os.environ.get(PAUSE, "0")) * len(batch))
        for atoms in batch:
            if self.deadly and HELIUM in atoms.numbers:
                os._exit(9)
            if self.deadly and NEON in atoms.numbers:
                time.sleep(1000)
            if self.once and not Path(self.once).exists():
                Path(self.once).touch()
                os._exit(9)
        return super().relax(batch, fmax, max_steps)


def make() -> Cheap:
    return Cheap("cheap", LennardJones(sigma=2.2, epsilon=0.3, rc=6.0, smooth=True))


def make_pessimist() -> Cheap:
    """It moves atoms as the other one does, and takes half of the binding for granted."""
    return Cheap("pessimist", LennardJones(sigma=2.2, epsilon=0.15, rc=6.0, smooth=True))


def make_deadly() -> Cheap:
    made = make()
    made.deadly = True
    return made


def make_deadly_once() -> Cheap:
    """The first worker dies, whatever it gets."""
    made = make()
    made.once = os.environ[FLAG]
    return made


def make_broken() -> Cheap:
    raise ValueError("no such weights")


def crystals(num: int, seed: int = 0) -> list[Atoms]:
    """Distorted binaries; every fifth equals an earlier one, every seventh has collided atoms."""
    rng = np.random.default_rng(seed)
    metals, others = ("Na", "Mg", "K", "Ca", "Zn", "Ag"), ("O", "S", "Cl", "Br", "N")
    made: list[Atoms] = []
    for i in range(num):
        if i % 5 == 4:
            made.append(made[int(rng.integers(len(made)))] * (2, 1, 1))
            continue
        name = f"{rng.choice(metals)}{rng.choice(others)}"
        crystal = rng.choice(["rocksalt", "zincblende", "cesiumchloride"])
        atoms = bulk(name, str(crystal), a=float(rng.uniform(4.0, 6.0)), cubic=True)
        atoms.rattle(0.15, seed=int(rng.integers(10**6)))
        if i % 7 == 6:
            atoms.positions[1] = atoms.positions[0] + 0.1
        made.append(atoms)
    return made
