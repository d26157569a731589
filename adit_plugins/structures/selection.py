"""Which files of a folder or archive are read: every structure once, and the rest by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from adit_plugins.structures.members import ARCHIVES, Member, stem_of

# Kinds that hold structures and nothing else; where there are some, tables, JSON and arrays beside
# them are settings and results.
PLAIN = (
    ".cif", ".mcif", ".xyz", ".extxyz", ".exyz", ".sdf", ".sd", ".mol", ".mdl", ".vasp", ".pdb",
    ".traj", ".xsf", ".res", ".cell", ".gen", ".xdatcar",
)  # fmt: skip
OTHER = (
    ".json", ".aditjson", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".npz", ".pt", ".db",
    ".aselmdb", ".txt", *ARCHIVES,
)  # fmt: skip
INDEX = "index.csv"  # of a folder of CIFs that this package wrote
MATTERGEN = "generated_crystals.extxyz"
MATTERGEN_CIFS = "generated_crystals_cif"
# What a campaign leaves: its structures as they were generated, and much beside.
_CAMPAIGN = {"results.db", "summary.json"}
_CAMPAIGN_SETS = ("crystals.extxyz", "molecules.extxyz")
_NAMED = 5  # files that a note lists


def choose(members: Sequence[Member]) -> tuple[list[Member], list[str]]:
    """Return the files to read and notes on what was left out.

    Two forms of one set count once: MatterGen's extxyz and CIFs, a campaign's files, and what
    OMatG began from (`x_init.xyz`) beside what it made of it (`x.xyz`).
    """
    doubled = _second_forms([member.name for member in members])
    rest = [member for member in members if member.name not in doubled]
    chosen = [member for member in rest if member.kind in PLAIN]
    if not chosen:
        chosen = [member for member in rest if member.kind in OTHER]
    names = {member.name for member in chosen}
    strange = [m.name for m in rest if m.name not in names and not _is_index(m.name)]
    notes = []
    if doubled:
        notes.append(f"{_files(doubled)} left out: another form of the same structures")
    if strange and chosen:
        notes.append(f"{_files(strange)} left out: no file of structures")
    kinds = Counter(member.kind for member in chosen)
    if len(kinds) > 1:
        text = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        notes.append(f"files of several kinds are read together: {text}")
    return chosen, notes


def _is_index(name: str) -> bool:
    return PurePosixPath(name).name == INDEX


def _files(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:_NAMED])
    more = ", ..." if len(names) > _NAMED else ""
    return f"{len(names)} {'file' if len(names) == 1 else 'files'} ({first}{more})"


def _second_forms(names: Sequence[str]) -> set[str]:
    folders: dict[str, set[str]] = defaultdict(set)
    for name in names:
        path = PurePosixPath(name)
        folders[path.parent.as_posix()].add(path.name)
    doubled: set[str] = set()
    for folder, files in folders.items():
        start = "" if folder == "." else f"{folder}/"
        inside = [name for name in names if name.startswith(start)]
        if MATTERGEN in files or f"{MATTERGEN_CIFS}.zip" in files:
            kept = MATTERGEN if MATTERGEN in files else f"{MATTERGEN_CIFS}.zip"
            doubled |= {name for name in inside if _is_of_mattergen(name[len(start) :], kept)}
        if files >= _CAMPAIGN and files & set(_CAMPAIGN_SETS):
            sets = {start + name for name in _CAMPAIGN_SETS}
            doubled |= {name for name in inside if name not in sets}
        stems = {stem_of(file) for file in files}
        doubled |= {
            start + file
            for file in files
            if stem_of(file).endswith("_init") and stem_of(file).removesuffix("_init") in stems
        }
    return doubled


def _is_of_mattergen(name: str, kept: str) -> bool:
    """Return whether a file beside MatterGen's set is the set again or the way to it."""
    path = PurePosixPath(name)
    if name == kept:
        return False
    if path.parts[0] == MATTERGEN_CIFS or (len(path.parts) == 1 and path.match("gen_*.cif")):
        return True
    return name in (f"{MATTERGEN_CIFS}.zip", "generated_trajectories.zip")
