"""Both tables of the ADiT talk for our weights, with the published rows beside them.

    python benchmarks/talk_tables.py --num 10000 --markdown tables.md --json tables.json

    crystals:  structurally valid, composition valid (SMACT with its smact14 table, the published
               figures' one), both, and with `--relax chgnet` metastable by that potential
               (published: by DFT)
    molecules: valid (OpenBabel's bonds, largest fragment), unique, without steric clash (0.8 of
               the lower bound), with reasonable internal energy (PoseBusters, 50 conformers)

More weights (`--checkpoint NAME_OR_FOLDER ...`) get a row each: given one trained on crystals only
and one on molecules only, beside the joint one, that is the table of transfer. The third table is
that of `symmetry.py`. The comparison of equivariant and augmented latents is repeated at a small
size by `equivariance.py`, whose rows are taken from its JSON. Published rows: Joshi et al.,
"All-atom Diffusion Transformers", arXiv 2503.03965, tables 1 and 2, and the sources named beside
them; 10,000 samples each.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sample_quality import (
    add_sampling_arguments,
    failures,
    figures,
    make_samples,
    sampling_settings,
    score,
    write_json,
)
from symmetry import table as symmetry_table

from adit_model import ADiT
from adit_plugins.metrics.crystals import CrystalMetrics, evaluate_crystals
from adit_plugins.metrics.molecules import MoleculeMetrics
from adit_plugins.metrics.names import in_words, plain
from adit_plugins.metrics.rates import Rate
from adit_plugins.metrics.stability import add_stability
from adit_plugins.structures.samples import Sample

# Percent. Joshi et al. 2025 (arXiv 2503.03965) for both tables; Zatom rows: the Zatom papers, 2026.
PUBLISHED_CRYSTALS = {
    "FlowMM": (96.7, 83.0, 80.3, 30.6),
    "FlowLLM": (99.9, 90.8, 90.8, 66.9),
    "equivariant ADiT, MP20 only": (99.2, 86.1, 85.5, None),
    "ADiT, MP20 only": (99.6, 90.5, 90.1, 81.6),
    "ADiT, MP20 + QM9": (99.8, 91.9, 91.9, 81.0),
}
PUBLISHED_MOLECULES = {
    "EDM": (91.9, 98.6, 99.8, 94.8),
    "Symphony": (83.5, 97.9, 98.1, 95.6),
    "equivariant ADiT, QM9 only": (91.5, 98.0, None, None),
    "ADiT, QM9 only": (92.2, 97.9, 99.9, 95.9),
    "ADiT, QM9 + MP20": (94.5, 97.8, 99.8, 95.9),
    "Zatom-1-L (2026)": (95.3, None, 99.8, 99.8),
    "Zatom-2 (2026)": (95.7, None, 100.0, 99.6),
}
COLUMNS = {
    "crystal": ("structurally valid", "composition valid", "both", "metastable"),
    "molecule": ("valid", "unique", "no steric clash", "reasonable energy"),
}
# Keys of the rates in `adit_plugins.metrics`, in the order of the columns.
RATES = {
    "crystal": ("struct_valid", "comp_valid", "valid", "metastable"),
    "molecule": (
        "valid_openbabel",
        "unique_openbabel",
        "posebusters_internal_steric_clash_0.8",
        "posebusters_internal_energy",
    ),
}
SMALL = Path(__file__).parent / "results" / "equivariance.json"


def small_rows(kind: str) -> dict[str, Sequence[Rate]]:
    """What `equivariance.py` measured of networks that were trained for minutes; may be nothing."""
    rows = json.loads(SMALL.read_text())["rows"] if SMALL.exists() else {}
    return {
        f"small: {name}": stored_rates(row["samples"][kind]["rates"])
        for name, row in rows.items()
        if "samples" in row
    }


def stored_rates(rows: Sequence[dict[str, Any]]) -> list[Rate]:
    """Rates as they were before they were written to JSON."""
    return in_words(Rate(r["name"], r["numerator"], r["denominator"], r["of"]) for r in rows)


def cells(kind: str, rates: Sequence[Rate]) -> list[str]:
    """Our row: share and counts of each column."""
    by_name: dict[str, Rate] = {}
    for rate in rates:
        by_name.setdefault(rate.name, rate)
    found = [by_name.get(plain(key)) for key in RATES[kind]]
    return [
        "-" if r is None or r.share is None else f"{r.share:.1f} ({r.numerator}/{r.denominator})"
        for r in found
    ]


def markdown_table(kind: str, ours: dict[str, Sequence[Rate]]) -> str:
    """Published rows, then ours."""
    published: Any = PUBLISHED_CRYSTALS if kind == "crystal" else PUBLISHED_MOLECULES
    rows = [["%", *COLUMNS[kind]], ["---"] * (1 + len(COLUMNS[kind]))]
    for name, values in published.items():
        rows.append([name, *("-" if v is None else f"{v:.1f}" for v in values)])
    rows += [[f"**{name}**", *cells(kind, rates)] for name, rates in ours.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def symmetry_markdown(results: dict[str, Any]) -> str:
    """The third table."""
    head = ("structures", "moved", "come back", "valid", "verdict as unmoved", "gap (angstrom)")
    rows = [list(head), ["---"] * len(head)]
    for source, found in results.items():
        if not isinstance(found, list):
            continue
        for row in found:
            of = f"/{row['structures']}"
            rows.append(
                [
                    source,
                    row["move"],
                    f"{row['come_back']}{of}",
                    "-" if row["valid"] is None else f"{row['valid']}{of}",
                    f"{row['same_verdict_as_unmoved']}{of}",
                    f"{row['median_gap_to_the_unmoved_answer']:.3f}",
                ]
            )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def relax_some(
    metrics: CrystalMetrics, samples: list[Sample], args: argparse.Namespace
) -> CrystalMetrics:
    """Metastable rates of the first `--num-relax` samples, beside the others of all."""
    few = samples[: args.num_relax]
    relaxed = evaluate_crystals(few, args.reference, workers=args.workers)
    add_stability(relaxed, few, args.relax, max_steps=args.max_steps, workers=args.workers)
    known = {(rate.name, rate.of) for rate in metrics.rates}
    metrics.rates += [r for r in relaxed.rates if (r.name, r.of) not in known]
    metrics.notes += [f"of the first {len(few)} samples: {note}" for note in relaxed.notes[-1:]]
    return metrics


def run(
    kind: str, checkpoint: str | None, args: argparse.Namespace
) -> tuple[dict[str, Any], CrystalMetrics | MoleculeMetrics]:
    """Sample and score one kind with one set of weights."""
    samples, made = make_samples(kind, args.num, checkpoint, sampling_settings(args))
    start = time.perf_counter()
    metrics = score(kind, samples, args.reference, args.fast, args.workers)
    made |= failures(kind, samples, metrics)
    made["seconds_to_score"] = round(time.perf_counter() - start, 1)
    if args.relax and isinstance(metrics, CrystalMetrics):
        metrics = relax_some(metrics, samples, args)
        made["seconds_to_relax"] = round(time.perf_counter() - start - made["seconds_to_score"], 1)
    return made, metrics


def kinds_of(checkpoint: str | None, wanted: Sequence[str]) -> list[str]:
    """What these weights were trained on, of the kinds that are wanted."""
    sizes = ADiT.from_pretrained(checkpoint).config.size_histogram
    return [kind for kind in wanted if any(sizes.get(kind, []))]


def main() -> int:
    """Print the JSON, and write both forms where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_sampling_arguments(parser)
    parser.add_argument("--checkpoint", nargs="+", default=[None], help="names, folders or files")
    parser.add_argument("--relax", help="a potential, for the metastable column")
    parser.add_argument("--num-relax", type=int, default=500, help="of each set of crystals")
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--num-symmetry", type=int, default=200, help="0 leaves its table out")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="unseen structures for it")
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")
    results: dict[str, Any] = {}
    ours: dict[str, dict[str, Sequence[Rate]]] = {"crystal": {}, "molecule": {}}
    for checkpoint in args.checkpoint:
        for kind in kinds_of(checkpoint, args.kind):
            made, metrics = run(kind, checkpoint, args)
            name = f"{made['checkpoint']} ({made['hash'][:8]})"
            ours[kind][name] = metrics.rates
            results.setdefault(name, {})[kind] = made | figures(metrics)
    tables = [markdown_table(kind, rows | small_rows(kind)) for kind, rows in ours.items() if rows]
    if args.num_symmetry:
        for checkpoint in args.checkpoint:
            symmetry = symmetry_table(checkpoint, args.num_symmetry, args.seed, args.data)
            results.setdefault("symmetry", []).append(symmetry)
            tables.append(symmetry_markdown(symmetry))
    text = "\n\n".join(tables) + "\n"
    if args.markdown is not None:
        args.markdown.write_text(text, encoding="utf-8")
    write_json(results | {"tables": text.split("\n")}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
