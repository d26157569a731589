"""A relaxer and an exporter for adit-plugins: `pip install .`, and they are there by name."""

from collections.abc import Iterator
from pathlib import Path

from ase.calculators.emt import EMT, parameters
from ase.data import atomic_numbers
from ase.io.trajectory import Trajectory

from adit_plugins import Sample
from adit_plugins.relax import AseRelaxer


def emt() -> AseRelaxer:
    """`adit relax FILE --relaxer emt`: ASE's effective medium theory, for a few metals."""
    known = frozenset(atomic_numbers[symbol] for symbol in parameters)
    return AseRelaxer("emt", EMT(), elements=known, convention="")


def write_trajectory(samples: Iterator[Sample], path: Path) -> None:
    """`adit generate --out samples.traj`: ASE's binary trajectory."""
    with Trajectory(path, "w") as trajectory:
        for sample in samples:
            trajectory.write(sample.to_ase())
