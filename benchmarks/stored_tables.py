"""The paper's and the talk's tables of MP20 and QM9 with a row of ours, as measured.

    python benchmarks/stored_tables.py

prints them from `benchmarks/results/` in a second; `talk_tables.py` and the benchmarks named beside
each measure them again. `docs/paper.md` holds what this prints.
"""

from __future__ import annotations

from collections.abc import Iterator

from equivariant_diffusion import table as diffusion_table
from json_output import stored
from talk_tables import PUBLISHED_CRYSTALS, markdown_table, stored_rates, symmetry_markdown

PUBLISHED_MATCHES = "published_match_rate_percent_and_rms"


def lines(rows: list[list[str]]) -> str:
    """Markdown of a head and rows."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def samples(kind: str) -> str:
    """Raw samples of the release beside the published rows."""
    found = stored("sample_quality")[kind]
    name = f"{found['checkpoint']} ({found['hash'][:8]}), 10,000 raw"
    return markdown_table(kind, {name: stored_rates(found["rates"])})


def metastable() -> str:
    """Of the release's crystals, relaxed by both potentials, beside the published DFT."""
    found = stored("release_relaxed")
    rates = {rate["name"]: rate for rate in found["rates"]}
    name = f"**{found['checkpoint']} ({found['hash'][:8]})**"

    def share(of: str) -> str:
        rate = rates[of]
        return f"{rate['percent']:.1f} ({rate['numerator']}/{rate['denominator']})"

    rows = [["", "metastable, %", "and unique and novel"]]
    rows += [[n, f"{v[3]:.1f}", "-"] for n, v in PUBLISHED_CRYSTALS.items() if v[3] is not None]
    rows.append([name, share("metastable"), share("metastable S.U.N.")])
    return lines(rows)


def prediction() -> str:
    """One sample of each test crystal, told its elements."""
    found = stored("structure_prediction_all")
    rows = [["", "matched, %", "RMS displacement"]]
    rows += [
        [n, f"{rate:.2f}", f"{rms:.4f}"] for n, (rate, rms) in found[PUBLISHED_MATCHES].items()
    ]
    ours = found["results"]["all"]
    share = f"{100 * ours['match_rate']:.2f} ({ours['matched']}/{ours['crystals']})"
    rows.append([f"**{found['checkpoint']} ({found['hash'][:8]})**", share, str(ours["mean_rms"])])
    return lines(rows)


def times(name: str) -> str:
    """Milliseconds of a step and structure of each network."""
    found: dict[str, dict[str, str]] = {}
    for row in stored(name)["rows"]:
        found.setdefault(row["network"], {})[row["kind"]] = str(row["ms_a_step_and_structure"])
    rows = [["network", "crystals", "molecules"]]
    rows += [[n, v.get("crystal", ""), v.get("molecule", "")] for n, v in found.items()]
    return lines(rows)


def latents() -> str:
    """What linear probes read from an atom's latent."""
    found = stored("latent_pca")
    rows = [["", "most frequent", "two components", "linear probe", "on samples", "neighbour"]]
    for name in ("kind", "group", "group, crystals", "group, molecules"):
        part = found[name]
        keys = ("most_frequent", "probe_of_two_components", "probe", "probe_on_samples")
        cells = [f"{100 * part[key]:.1f} %" for key in (*keys, "nearest_neighbour")]
        rows.append([name, *cells])
    return lines(rows)


def law() -> str:
    """Exponents of the scaling law."""
    found = stored("scaling")["law"]
    rows = [["loss of", "runs", "exponent of the weights", "of the atoms seen", "scatter"]]
    for kind, fit in found.items():
        (a, da), (b, db) = fit["weights_exponent"], fit["atoms_exponent"]
        scatter = f"{100 * fit['residual']:.0f} %"
        rows.append([f"{kind}s", str(fit["runs"]), f"{a} ± {da}", f"{b} ± {db}", scatter])
    return lines(rows)


def sections() -> Iterator[tuple[str, str, str]]:
    """Title, the benchmark or command that measures it, and the table."""
    yield "Crystals", "sample_quality.py", samples("crystal")
    yield "Crystals, relaxed", "adit evaluate", metastable()
    yield "Molecules", "sample_quality.py", samples("molecule")
    yield "Structure prediction", "structure_prediction.py", prediction()
    for table in stored("talk_tables")["symmetry"]:
        yield "Moved structures come back", "symmetry.py", symmetry_markdown(table)
    text = "\n".join(stored("equivariance")["tables"])
    yield "Equivariant latents or augmentation", "equivariance.py", text
    scaling = stored("scaling")["tables"]
    yield "One kind or both", "scaling_runs.py", "\n".join(scaling["transfer"])
    yield "Size and training", "scaling.py", "\n".join(scaling["scaling"])
    yield "The law", "scaling.py", law()
    yield "The latent space", "latent_pca.py", latents()
    yield "Time on a CPU", "steps_time.py", times("steps_time")
    yield "Time on a GPU", "steps_time.py", times("steps_time_gpu")
    diffusion = diffusion_table(stored("equivariant_diffusion"))
    yield "A transformer or equivariant diffusion", "equivariant_diffusion.py", diffusion


def main() -> int:
    """Print all."""
    for title, measure, table in sections():
        where = "benchmarks/" if measure.endswith(".py") else ""
        print(f"## {title}\n\n`{where}{measure}`\n\n{table}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
