"""Score a set of crystals by the published rules, each rate with its denominator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from adit_plugins import processes
from adit_plugins.metrics.distributions import compare_with_training, describe
from adit_plugins.metrics.names import GIVEN, in_words
from adit_plugins.metrics.rates import Rate, rate
from adit_plugins.metrics.references import CrystalReference, Reference, load_reference
from adit_plugins.processes import DIED
from adit_plugins.relax.results import space_group
from adit_plugins.structures.samples import Convertible, Sample, to_sample
from adit_plugins.validity.crystals import is_composition_valid, is_structure_valid
from adit_plugins.validity.lemat import check_lemat, mass_density

if TYPE_CHECKING:
    from pymatgen.core import Structure

Progress = Callable[[str, int, int], None]  # stage, done, total

MAX_ATOMS = 2_000  # the distances between all pairs of more take gigabytes
UNREADABLE, KILLED = "cannot be read", "a worker process died of it"
PAIR_SECONDS = 1.0  # for the comparison of two crystals, but a minute for those of a formula
VERDICTS = (
    "struct_valid", "comp_valid", "comp_valid_icsd24", "comp_valid_smact4", "valid",
    "lemat_charge", "lemat_distance", "lemat_plausible", "lemat_valid",
)  # fmt: skip
NOTES = {
    "struct_valid": "all distances >= 0.5 angstrom (own images too), volume >= 0.1 angstrom^3",
    "comp_valid": "CDVAE's SMACT rule with the smact14 table, as in the published figures",
    "comp_valid_icsd24": "the same rule with SMACT 4's Element.oxidation_states",
    "comp_valid_smact4": "smact_validity() of SMACT 4 with its defaults",
    "valid": "structurally and composition valid",
    "lemat_charge": "LeMat-GenBench: neutral or metallic",
    "lemat_distance": "LeMat-GenBench: distances >= (0.7 + both radii) / 2",
    "lemat_plausible": "LeMat-GenBench: densities, cell lengths and a space group",
    "lemat_valid": "the three together",
}


@dataclass
class CrystalMetrics:
    """What a set of crystals scored.

    Attributes:
        rates: in the order of a table.
        rows: one a crystal, in input order: verdicts by name, `reason` where it is invalid.
        distributions: name -> values of the readable crystals, for plots.
        values: numbers that are no rates, by a name with their unit.
        notes: what a reader must know.
    """

    rates: list[Rate] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    distributions: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def evaluate_crystals(
    crystals: Sequence[Convertible | None],
    reference: Reference = "crystal",
    reasons: Sequence[str | None] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CrystalMetrics:
    """Score crystals from any source: validity, uniqueness, novelty, distances of distributions.

    Args:
        crystals: None is an entry that could not be read; it counts as invalid.
        reference: for novelty: `"crystal"` for the fingerprints of the shipped training set, a
            file of fingerprints or of structures (compared by StructureMatcher), structures, or
            what `load_reference` returned.
        reasons: why the None entries could not be read, one an entry.
        workers: processes; 0 for none, where nothing has a time limit; None for one a core, and
            for none where there are fewer than a hundred crystals.
        progress: called with a stage, the number done and the total.

    Raises:
        ValueError: the reference cannot be read, or `reasons` has another length.
    """
    if reasons is not None and len(reasons) != len(crystals):
        raise ValueError(f"{len(reasons)} reasons for {len(crystals)} crystals")
    report = progress or (lambda stage, done, total: None)
    known = load_reference(reference)
    samples = [_compact(each) for each in crystals]
    rows = []
    # Who gives reasons has said who they are of (`read_set`).
    named = {i for i, each in enumerate(samples) if each == UNREADABLE and reasons is not None}
    judged = processes.map(judge_crystal, samples, _killed, workers)
    for index, row in enumerate(judged):
        if index in named and reasons is not None:
            row["reason"] = reasons[index] or UNREADABLE
        rows.append(row)
        report("crystals judged", index + 1, len(samples))
    mark_matches(rows, samples, known, workers, report)
    metrics = CrystalMetrics(_rates(rows, known), rows, describe(rows))
    metrics.values = compare_with_training(rows)
    metrics.notes = [f"novel: {known.note}", *_unreadable_note(rows, named)]
    return metrics


def _compact(crystal: Convertible | None) -> Sample | str:
    """A few arrays, ten times smaller than a Structure; or why there are none."""
    if crystal is None:
        return UNREADABLE
    try:
        sample = to_sample(crystal)
    except (ValueError, TypeError) as error:
        return str(error)
    if sample.kind != "crystal":
        return "it is a molecule (not periodic)"
    return sample


def judge_crystal(sample: Sample | str) -> dict[str, Any]:
    """Every verdict that needs no other crystal; never raises."""
    row: dict[str, Any] = {"formula": None, "num_atoms": 0, "num_elements": 0, "elements": {}}
    row |= {"density": None, "space_group": None, "reason": ""} | dict.fromkeys(VERDICTS, False)
    row |= dict.fromkeys(("unique", "unique_lemat", "novel", "novel_lemat", "duplicate_of"))
    if isinstance(sample, str):
        return row | {"reason": sample}
    row["num_atoms"] = sample.num_atoms
    if sample.num_atoms > MAX_ATOMS:
        return row | {"reason": f"{sample.num_atoms} atoms; more than {MAX_ATOMS} are not judged"}
    try:
        _fill(row, sample)
    except Exception as error:  # noqa: BLE001 - whatever a cell does to pymatgen, it is counted
        row |= dict.fromkeys(VERDICTS, False)
        row["reason"] = f"cannot be judged: {type(error).__name__}: {error}"[:200]
    return row


def _fill(row: dict[str, Any], sample: Sample) -> None:
    structure = cast("Structure", sample.to_pymatgen())
    composition = structure.composition
    row["formula"] = composition.reduced_formula
    row["elements"] = {str(k): int(v) for k, v in composition.get_el_amt_dict().items()}
    row["num_elements"] = len(composition)
    row["comp_valid"] = is_composition_valid(composition)
    row["comp_valid_icsd24"] = is_composition_valid(composition, "icsd24")
    row["comp_valid_smact4"] = is_composition_valid(composition, "smact4")
    row["struct_valid"] = is_structure_valid(structure)
    row["valid"] = row["struct_valid"] and row["comp_valid"]
    if not row["struct_valid"]:
        row["reason"] = "atoms closer than 0.5 angstrom, or no volume"
        return
    row["density"] = mass_density(structure)
    row["space_group"] = space_group(sample.to_ase())
    lemat = check_lemat(structure)
    row["lemat_charge"], row["lemat_distance"] = lemat.charge, lemat.distance
    row["lemat_plausible"] = lemat.plausible and row["space_group"] is not None
    row["lemat_valid"] = lemat.valid and row["lemat_plausible"]
    if not row["comp_valid"]:
        row["reason"] = "composition: no neutral charges that pass Pauling's test"


def _killed(sample: Sample | str, problem: str) -> dict[str, Any]:
    reason = KILLED if problem == DIED else problem
    return judge_crystal(reason if isinstance(sample, Sample) else sample)


def mark_matches(
    rows: list[dict[str, Any]],
    samples: Sequence[Sample | str],
    known: CrystalReference,
    workers: int | None,
    report: Progress,
) -> None:
    """Mark the structurally valid crystals as unique and novel, or not."""
    valid = [i for i, row in enumerate(rows) if row["struct_valid"]]
    buckets = known.buckets(valid, [rows[i]["formula"] for i in valid])
    work = [[cast(Sample, samples[i]) for i in bucket.places] for bucket in buckets]
    found = processes.map(
        known.compare,
        zip(work, (bucket.references for bucket in buckets), strict=True),
        _no_matches,
        workers,
        chunk_size=20,
        seconds=_seconds,
    )
    done = 0
    for bucket, matches in zip(buckets, found, strict=True):
        for place, verdict in zip(bucket.places, matches, strict=True):
            first = verdict.pop("duplicate_of")
            rows[place] |= verdict
            rows[place]["duplicate_of"] = None if first is None else bucket.places[first]
        done += len(bucket.places)
        report("crystals compared", done, len(valid))


def _seconds(item: tuple[list[Sample], Any]) -> float:
    """How long the comparison of all crystals of a formula may take."""
    num = len(item[0])
    return max(processes.MAP_SECONDS, num * (num - 1 + len(item[1])) * PAIR_SECONDS)


def _no_matches(item: tuple[list[Sample], Any], problem: str) -> list[dict[str, Any]]:
    """A comparison that kills its process leaves no verdict, and that is not a good one."""
    blank = {"unique": None, "unique_lemat": None, "novel": None, "novel_lemat": None}
    reason = KILLED if problem == DIED else f"not compared: {problem}"
    return [{**blank, "duplicate_of": None, "reason": reason} for _ in item[0]]


def _rates(rows: list[dict[str, Any]], known: CrystalReference) -> list[Rate]:
    num = len(rows)
    readable = sum(row["formula"] is not None for row in rows)
    rates = [Rate("readable", readable, num, GIVEN)]
    rates += [rate(name, [r[name] for r in rows], GIVEN, NOTES[name]) for name in VERDICTS]

    def of(base: str) -> list[dict[str, Any]]:
        return [row for row in rows if row[base]]

    for name, base in _COMPARISONS:
        if name.startswith("novel_lemat") and not known.by_matcher:
            continue  # the fingerprints stand for one setting only
        shown = f"{name} among valid" if base == "valid" else name
        rates.append(Rate(shown, *_count(of(base), name), base, _SETTINGS[name]))
    both = [bool(r["unique"] and r["novel"]) for r in of("valid")]
    return in_words([*rates, rate("unique and novel", both, "valid")])


def _count(rows: list[dict[str, Any]], name: str) -> tuple[int, int]:
    """No verdict (a comparison that died) counts as none in favour."""
    return sum(bool(row[name]) for row in rows), len(rows)


_COMPARISONS = (
    ("unique", "struct_valid"), ("unique", "valid"), ("unique_lemat", "lemat_valid"),
    ("novel", "struct_valid"), ("novel", "valid"), ("novel_lemat", "lemat_valid"),
)  # fmt: skip
_SETTINGS = {
    "unique": "matches no earlier one: StructureMatcher, stol 0.5, angle 10, ltol 0.3",
    "unique_lemat": "the same with LeMat-GenBench's ltol 0.1",
    "novel": "matches nothing in the reference",
    "novel_lemat": "the same with LeMat-GenBench's ltol 0.1",
}


def _unreadable_note(rows: list[dict[str, Any]], named: set[int]) -> Iterator[str]:
    bad = [row["reason"] for i, row in enumerate(rows) if row["formula"] is None and i not in named]
    if bad:
        yield f"{len(bad)} of {len(rows)} cannot be read or judged; the first: {bad[0]}"
