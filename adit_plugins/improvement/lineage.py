"""What a run of `adit improve` keeps: its picks as prepared data, and where it comes from."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.config import KINDS
from adit_model.outputs import replacing
from adit_plugins._version import __version__
from adit_plugins.datasets.common import assemble
from adit_plugins.improvement.picking import Picks
from adit_plugins.improvement.reading import Campaign

if TYPE_CHECKING:
    from adit_model.config import ADiTConfig

KEY = "improved"  # of a checkpoint's provenance: one entry a round, the last one last
TABLE, CARD = "picks.csv", "README.md"
UNITS = {"density": "g/cm3"}
COLUMNS = ("kind", "id", "formula", "num_atoms", "energy_above_hull", "potential", "smiles")
_ROUND = re.compile(r"^(?P<stem>.+)-r(?P<number>\d+)$")


@dataclass(frozen=True)
class Parent:
    """The checkpoint that is trained on.

    Attributes:
        given: its name, folder or file, as `--init` takes it.
        config: its configuration.
        weights: their identity, 12 hexadecimal digits.
    """

    given: str
    config: ADiTConfig
    weights: str

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rounds of improvement that it comes from, the first one first."""
        found = self.config.provenance.get(KEY)
        return list(found) if isinstance(found, list) else []

    @property
    def next_name(self) -> str:
        """`adit-joint-r1`, then `adit-joint-r2`: sample ids never begin as those of others."""
        match = _ROUND.match(self.config.name)
        if match is None:
            return f"{self.config.name}-r{len(self.rounds) + 1}"
        return f"{match['stem']}-r{int(match['number']) + 1}"


def parent_of(campaigns: Sequence[Campaign], init: str | None) -> Parent:
    """Read the checkpoint to go on from: the one given, or the one that made the campaigns.

    Raises:
        ValueError: several have made them, or the one that did has other weights by now.
        CheckpointError: it is missing or damaged, or cannot be trained on.
    """
    from adit_model.checkpoints.folder import DEFAULT_NAME
    from adit_model.checkpoints.pretrained import read

    made = {each.weights: each.checkpoint or DEFAULT_NAME for each in campaigns if each.weights}
    if init is None and len(made) > 1:
        raise ValueError(
            f"Several checkpoints have made these campaigns: {', '.join(sorted(made.values()))}. "
            "Say from which to go on: --init CHECKPOINT."
        )
    given = init or next(iter(made.values()), DEFAULT_NAME)
    config, _, weights = read(given)
    if init is None and made and weights not in made:
        raise ValueError(
            f"{given} has other weights ({weights}) than when it made the campaign "
            f"({next(iter(made))}). Say from what to go on: --init CHECKPOINT."
        )
    if config.denoiser is None:
        raise ValueError(f"{given} holds no denoiser to train on; choose another --init.")
    return Parent(given, config, weights)


def save_picks(picks: Picks, out: Path) -> dict[str, Path]:
    """Write `picks-crystal.safetensors`, `picks-molecule.safetensors` and `picks.csv`.

    Returns:
        The prepared files by kind, crystals first.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        path, rows = _picks_path(out, kind), picks.rows.get(kind)
        if rows:
            assemble(path.stem, kind, rows, "adit improve", UNITS).save(path)
        else:
            path.unlink(missing_ok=True)  # of an earlier call that did not come to train
    with replacing(out / TABLE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for each in (each for several in picks.chosen.values() for each in several):
            assert each.atoms is not None
            size, energy = len(each.atoms), each.energy
            writer.writerow(
                (each.kind, each.name, each.formula, size, energy, each.potential, each.smiles)
            )
    return kept_picks(out)


def places_of(picks: Picks, out: Path) -> dict[str, Path]:
    """Return the files that `save_picks` writes, by kind, for a process that writes none."""
    return {kind: _picks_path(out, kind) for kind in KINDS if picks.rows.get(kind)}


def kept_picks(out: Path) -> dict[str, Path]:
    """Return the prepared files of picks in a run's folder by kind, crystals first."""
    paths = {kind: _picks_path(out, kind) for kind in KINDS}
    return {kind: path for kind, path in paths.items() if path.is_file()}


def _picks_path(out: Path, kind: str) -> Path:
    return out / f"picks-{kind}.safetensors"


def round_of(
    parent: Parent, campaigns: Sequence[Campaign], picks: Picks, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a checkpoint says of the round that made it, as JSON has it."""
    made = [
        {
            "folder": each.folder,
            "id": each.identity,
            "weights": each.weights,
            "potentials": each.potentials,
        }
        for each in campaigns
    ]
    entry = {
        "parent": f"{parent.config.name} {parent.weights}",
        "campaigns": made,
        "picks": picks.numbers(),
        "structures": picks.total,
        "left_out": {kind: dict(each.most_common()) for kind, each in picks.left_out.items()},
        "options": dict(options),
        "adit_plugins": __version__,
    }
    found: dict[str, Any] = json.loads(json.dumps(entry))
    return found


def times_seen(config: ADiTConfig, data: Sequence[str], shares: Sequence[float]) -> str:
    """Say how often a run has shown each training structure of its data sets, on average.

    Args:
        config: of the checkpoint, which knows its steps.
        data: prepared files or folders.
        shares: of each.
    """
    from adit_model.data import SPLITS
    from adit_model.sharded_data import load_data

    trained = config.provenance["denoiser"]
    shown = trained["steps"] * trained["tokens_per_step"] / sum(shares)  # atoms, of share 1
    parts = []
    for path, share in zip(data, shares, strict=True):
        part = load_data(Path(path))
        atoms = int(part.num_atoms[part.split == SPLITS.index("train")].sum())
        parts.append(f"{part.name} {shown * share / atoms:.3g}")
    return f"Each structure was seen so many times: {', '.join(parts)}."


def card_of(config: ADiTConfig, seen: str) -> str:
    """Return the model card of an improved checkpoint, in Markdown."""
    rounds = config.provenance[KEY]
    lines = [
        f"# {config.name}",
        "",
        "Made by `adit improve`: its parent, trained on with what campaigns have found beside the "
        "parent's data. Energies that picked the crystals are those of a potential, not of DFT.",
        "",
        "| round | parent | campaigns | picked | options |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, each in enumerate(rounds, start=1):
        campaigns = "; ".join(
            f"`{c['folder']}` ({c['id']}, {', '.join(c['potentials']) or 'not relaxed'})"
            for c in each["campaigns"]
        )
        picked = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind, n in each["picks"].items())
        options = ", ".join(f"{name} {value}" for name, value in each["options"].items())
        lines.append(f"| {number} | {each['parent']} | {campaigns} | {picked} | {options} |")
    trained = config.provenance.get("denoiser", {})
    if trained:
        lines += ["", f"The last round: {trained['steps']} steps, {trained['minutes']} minutes on "
                  f"{trained['hardware']}. {seen}"]  # fmt: skip
    licence = config.provenance.get("licence")
    return "\n".join([*lines, *(["", f"Licence of the parent: {licence}."] if licence else []), ""])
