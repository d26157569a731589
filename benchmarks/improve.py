"""Does `adit improve` make a better generator, or one that repeats what it picked?

    python benchmarks/improve.py --data data/crystals.safetensors --folder work \\
        --json benchmarks/results/improve.json

Each round: a campaign with the current checkpoint, relaxed by `mace-adit` alone; `adit improve` on
it and those before; and a control, trained from the control before it as long without picks
(`adit train denoiser`, the same data and options). Then of the first checkpoint, each improved one
and each control, with the same seeds, and so the same elements for sample i (the prior of elements
is trained by none):

- stable, unique and novel, of `--judged` samples a seed, by CHGNet, which picked nothing. It judges
  where `mace-adit` has left the crystals and takes `--judge-steps` steps from there, as in
  `adit discover --prefilter mace-adit`. Pairs of samples say who gains (exact McNemar test).
- of `--raw` raw samples, or of the judged ones as they were generated: structurally valid and
  unique ones; single elements; pairs that are one structure but for exchanged lanthanides; those
  that equal a pick, as they are.

- of the first and the last two, told the elements of each pick, and of `--told` crystals of the
  data's test split: how often one sample is that crystal, as in `structure_prediction.py`. Picks
  that come back more often than by the control were learned; test crystals that come back less
  often were forgotten.

What is finished is kept in `--folder`: a run that was ended goes on. Shares have Wilson's interval.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pymatgen.core import Element, Structure
from scipy.stats import binomtest, wilcoxon
from structure_prediction import held_out, nearest, predicted

from adit_model import ADiT
from adit_model.data import PreparedData
from adit_model.outputs import replacing
from adit_plugins import ADiTGenerator
from adit_plugins.campaign.records import generated_sample
from adit_plugins.campaign.settings import KNOWN_STRUCTURE
from adit_plugins.campaign.store import Store
from adit_plugins.improvement.known import Known
from adit_plugins.matching import find_duplicates, is_match
from adit_plugins.metrics.stability import METASTABLE, is_within
from adit_plugins.structures.given import to_structure
from adit_plugins.validity import is_structure_valid

POOL_SEED, RAW_SEED = 1000, 8  # the pools of further rounds: 1001, ...
PICKER, JUDGE = "mace-adit", "chgnet"
FINISHED = "finished"  # in the folder of a run
LANTHANIDES = range(57, 72)


def adit(*arguments: str | Path) -> None:
    """Run a command; what it says goes to stderr.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "adit_plugins.cli", *map(str, arguments)]
    print("adit", shlex.join(command[3:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603


def share(number: int, of: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson)."""
    low, high = binomtest(number, of).proportion_ci(method="wilson") if of else (0.0, 1.0)
    return {"number": number, "of": of, "interval": [round(low, 4), round(high, 4)]}


def campaign(folder: Path, checkpoint: str | None, num: int, seed: int, *options: str) -> None:
    """Run a campaign, or what is left of it."""
    done = folder / "summary.json"
    if done.is_file() and json.loads(done.read_text())["ended"] == "all":
        return
    if (folder / "results.db").is_file():
        adit("discover", "--resume", folder, "--workers", "1")
        return
    made_by = ["--checkpoint", checkpoint] if checkpoint else []
    sampled = ["--kind", "crystal", "--num", str(num), "--seed", str(seed), "--workers", "1"]
    adit("discover", *made_by, *sampled, *options, "--out", folder)


def trained(folder: Path, command: Sequence[str | Path], options: Sequence[str]) -> str:
    """Train unless that is done, or go on; return the checkpoint."""
    if not (folder / FINISHED).is_file():
        begun = (folder / "state.safetensors").is_file()
        adit(*command, "--out", folder, *options, *(["--resume"] if begun else []))
        (folder / FINISHED).touch()
    return str(folder / "model")


def rounds(args: argparse.Namespace) -> None:
    """Do the rounds, then measure every checkpoint."""
    current: str | None = None
    control = "adit-joint"
    pools: list[Path] = []
    made: dict[str, str | None] = {"first": None}
    options = ["--data", *map(str, args.data), *shlex.split(args.training)]
    for number in range(1, args.rounds + 1):
        pool, improved = (args.folder / f"{n}-{number}" for n in ("pool", "improved"))
        steps = ("--relaxer", PICKER, "--max-steps", "300")
        if not (improved / FINISHED).is_file():
            campaign(pool, current, args.num, POOL_SEED + number - 1, *steps)
        pools.append(pool)
        command: list[str | Path] = [
            "improve",
            *pools,
            "--init",
            current or control,
            "--share",
            str(args.share),
        ]
        current = trained(improved, command, options)
        plain = ["train", "denoiser", "--init", control, "--name", f"adit-joint-c{number}"]
        control = trained(args.folder / f"control-{number}", plain, options)
        made |= {f"improved {number}": current, f"control {number}": control}
    measure(args, made)


def is_sun(row: dict[str, Any]) -> bool:
    """Whether a crystal of a campaign is stable, unique and novel, also as relaxed."""
    return (
        is_within(row.get("energy_above_hull"), METASTABLE)
        and row.get("novelty") != KNOWN_STRUCTURE
        and "relaxed_duplicate_of" not in row
        and "hull_gap" not in row
    )


def judged(folders: Sequence[Path], picks: dict[str, Known]) -> dict[str, Any]:
    """Counts of campaigns that the judge has relaxed, and which samples are S.U.N."""
    rows: list[dict[str, Any]] = []
    good: list[Structure] = []
    for folder in folders:
        with Store(folder, read_only=True) as store:
            rows += store.verdicts()
            found = (row for row in store.rows() if is_sun(row.key_value_pairs))
            good += [to_structure(row.toatoms()) for row in found]
    valid = [bool(row.get("structure_valid")) for row in rows]
    novel = [bool(row.get("novel")) for row in rows]
    energies = [r["energy_above_hull"] for r in rows if "energy_above_hull" in r]
    return {
        "valid": share(sum(valid), len(rows)),
        "unique_and_novel": share(sum(novel), len(rows)),
        "median_energy_above_hull": median(energies) if energies else None,
        "relaxed": len(energies),
        "sun": share(sum(map(is_sun, rows)), len(rows)),
        "sun_equal_to": {
            name: share(sum(is_in(each, known) for each in good), len(good))
            for name, known in picks.items()
        },
        "sun_samples": [name_of(row) for row in rows if is_sun(row)],
        "energies": {
            name_of(row): round(row["energy_above_hull"], 4)
            for row in rows
            if "energy_above_hull" in row
        },
    }


def name_of(row: dict[str, Any]) -> str:
    """A sample by its seed and index, whoever made it."""
    return f"{row['seed']}/{row['sample_index']}"


def is_in(structure: Structure, known: Known) -> bool:
    """Whether a crystal equals one of the picks."""
    alike = known.alike(structure.atomic_numbers, "crystal")
    return any(is_match(each.structure, structure) for each in alike)


def swapped(structure: Structure) -> Structure:
    """The structure with lanthanum in the place of every lanthanide."""
    names = ["La" if Element(e.symbol).Z in LANTHANIDES else e.symbol for e in structure.species]
    return Structure(structure.lattice, names, structure.frac_coords)


def drawn(checkpoint: str | None, num: int, folders: Sequence[Path]) -> list[Structure]:
    """Raw samples, or without a number those of campaigns as they were generated."""
    if num:
        made: list[Any] = ADiTGenerator("crystal", checkpoint, seed=RAW_SEED).generate(num)
    else:
        made = []
        for folder in folders:
            with Store(folder, read_only=True) as store:
                samples = [generated_sample(row) for row in store.rows()]
            made += [each.to_pymatgen() for each in samples if each is not None]
    return [each for each in made if isinstance(each, Structure)]


def raw(structures: Sequence[Structure], picks: dict[str, Known]) -> dict[str, Any]:
    """Counts over raw samples; nothing is relaxed."""
    made = [each for each in structures if is_structure_valid(each)]
    unique = [s for s, d in zip(made, find_duplicates(made), strict=True) if d is None]
    exchanged = find_duplicates([swapped(each) for each in unique])
    counts: dict[str, Any] = {
        "valid": share(len(made), len(structures)),
        "unique": share(len(unique), len(made)),
        "single_elements": share(sum(len(each.composition) == 1 for each in made), len(made)),
        "lanthanide_swaps": share(sum(d is not None for d in exchanged), len(unique)),
    }
    for name, known in picks.items():
        alike = [bool(known.alike(each.atomic_numbers, "crystal")) for each in made]
        counts[f"of_a_formula_of_{name}"] = share(sum(alike), len(made))
        counts[f"equal_to_{name}"] = share(sum(is_in(s, known) for s in made), len(made))
    return counts


def told(checkpoint: str | None, crystals: dict[str, list[Structure]]) -> dict[str, Any]:
    """How many of some crystals one sample each of their elements brings back."""
    model = ADiT.from_pretrained(checkpoint, device="cpu")
    steps = model.config.sampling_of("crystal").num_steps
    settings = argparse.Namespace(num_steps=steps, precision="float32", seed=RAW_SEED)
    counts = {}
    for name, truth in crystals.items():
        made = predicted(model, truth, 1, settings)
        found = [nearest(*pair) is not None for pair in zip(truth, made, strict=True)]
        counts[name] = share(sum(found), len(found))
    return counts


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Samples that are S.U.N. of one checkpoint alone, and how the judge's energies differ.

    Energies are of the samples that were relaxed of both, eV/atom above the hull, one less other.
    """
    first, second = set(one["sun_samples"]), set(other["sun_samples"])
    gained, lost = len(first - second), len(second - first)
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    counts = {"gained": gained, "lost": lost, "both": len(first & second), "p": round(p, 4)}
    shared = sorted(one["energies"].keys() & other["energies"].keys())
    lower = [one["energies"][each] - other["energies"][each] for each in shared]
    return counts | {
        "energies_of_both": len(lower),
        "median_difference": round(median(lower), 4) if lower else None,
        "wilcoxon_p": round(float(wilcoxon(lower).pvalue), 4) if any(lower) else None,
    }


def kept(path: Path, make: Any) -> dict[str, Any]:
    """What a file of the folder holds, or what is made now and kept there."""
    if not path.is_file():
        content = make()
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def measure(args: argparse.Namespace, checkpoints: dict[str, str | None]) -> None:
    """Measure what has not been measured, and write all there is."""
    files = sorted(args.folder.glob("improved-*/picks-crystal.safetensors"))
    picks = {f"picks_{n}": Known([PreparedData.load(f)]) for n, f in enumerate(files, start=1)}
    report: dict[str, Any] = {
        "training": args.training,
        "share": args.share,
        "judge_steps": args.judge_steps,
        "seeds": {"pools": POOL_SEED, "judged": args.judged_seeds, "raw": RAW_SEED},
        "data": [path.name for path in args.data],
        "hardware": f"{platform.machine()} CPU, one thread, beside other programs",
        "torch": torch.__version__,
        "rounds": [lineage(args.folder / f"improved-{n}") for n in range(1, len(files) + 1)],
        "checkpoints": {},
    }
    # The last picks hold the earlier ones: the campaigns of all rounds are picked from.
    last_picks = [s.structure for several in picks[max(picks)].places.values() for s in several]
    crystals = {"the picks": last_picks}
    if args.told:
        held = held_out(PreparedData.load(args.data[0]), args.told, RAW_SEED)
        crystals["the test split"] = list(held.values())
    for name, checkpoint in checkpoints.items():
        label = name.replace(" ", "-")
        folders = [args.folder / f"judged-{label}-{seed}" for seed in args.judged_seeds]
        first = ("--prefilter", PICKER, "--prefilter-limit", "0.3")
        last = ("--relaxer", JUDGE, "--max-steps", str(args.judge_steps))
        for folder, seed in zip(folders, args.judged_seeds, strict=True):
            campaign(folder, checkpoint, args.judged, seed, *first, *last)
        found = judged(folders, picks)
        num = args.raw or f"judged-{len(folders)}"
        path = args.folder / f"raw-{num}-{label}-of-{len(picks)}.json"
        found["raw"] = kept(path, lambda c=checkpoint, f=folders: raw(drawn(c, args.raw, f), picks))
        if name in (*list(checkpoints)[:1], *list(checkpoints)[-2:]):
            path = args.folder / f"told-{args.told}-{label}-of-{len(picks)}.json"
            found["told_elements_of"] = kept(path, lambda c=checkpoint: told(c, crystals))
        report["checkpoints"][name] = found
        write(report, args.json)
    every = report["checkpoints"]
    pairs = [(a, b) for a in every for b in every if a.startswith("improved") and a != b]
    report["compared"] = {f"{a} with {b}": compared(every[a], every[b]) for a, b in pairs}
    write(report, args.json)


def lineage(folder: Path) -> dict[str, Any]:
    """What the last round of a checkpoint says of itself."""
    provenance = json.loads((folder / "model" / "config.json").read_text())["provenance"]
    last = dict(provenance["improved"][-1])
    last["campaigns"] = [Path(each["folder"]).name for each in last["campaigns"]]
    return last | {"steps": provenance["denoiser"]["steps"]}


def write(report: dict[str, Any], path: Path | None) -> None:
    """Write as far as it is known."""
    if path is not None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")


def main() -> int:
    """Do the rounds and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="prepared files")
    parser.add_argument("--folder", type=Path, required=True, help="of all that is made")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--num", type=int, default=400, help="crystals of a campaign")
    parser.add_argument("--judged", type=int, default=150, help="samples judged of a seed")
    parser.add_argument("--judged-seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--judge-steps", type=int, default=100)
    parser.add_argument("--raw", type=int, default=2000, help="raw samples; 0: the judged ones")
    parser.add_argument("--told", type=int, default=200, help="crystals of the test split")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument(
        "--training",
        default="--minutes 10 --tokens 2048 --learning-rate 3e-4 --threads 1",
        help="options of both trainings",
    )
    parser.add_argument("--json", type=Path, help="of the results")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rounds(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
