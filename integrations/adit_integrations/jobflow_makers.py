"""The campaign's stages as a jobflow Flow: locally, or on clusters by jobflow-remote and FireWorks.

The makers are recipes of plain data. Every candidate of the ranking can go on into any Maker that
takes a structure, such as atomate2's `RelaxMaker`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobflow import Flow, Maker, Response, job
from pymatgen.core import Structure

from adit_plugins.campaign import Campaign, Resources, Settings, StructuresSource
from adit_plugins.campaign.files import write_files
from adit_plugins.campaign.funnel import Tally
from adit_plugins.campaign.records import current_atoms
from adit_plugins.campaign.row_texts import ranking
from adit_plugins.campaign.store import has_store
from adit_plugins.generation.generator import ADiTGenerator


@dataclass
class GenerateMaker(Maker):
    """Make crystals; the output is a list of Structure with their provenance.

    Attributes:
        name: of the job.
        generator: the recipe of the samples.
        num: how many.
    """

    name: str = "generate crystals"
    generator: ADiTGenerator = field(default_factory=ADiTGenerator)
    num: int = 16

    @job
    def make(self, start: int = 0) -> list[Structure]:
        """Return samples `start` to `start + num - 1` of the seed."""
        return list(self.generator.stream(self.num, as_="pymatgen", start=start))  # type: ignore[arg-type]


@dataclass
class ScreenMaker(Maker):
    """Check, relax and rank crystals in a campaign whose store stays in the job's folder.

    A job that is started again in the same folder goes on. The output is a dictionary: `funnel`
    (rates), `ranking` (rows of the ranked table) and `structures` (relaxed, in that order).

    Attributes:
        name: of the job.
        settings: fields of `adit_plugins.campaign.Settings`.
        resources: fields of `adit_plugins.campaign.Resources`.
        folder: of the store, in the job's folder.
        num: candidates in the output.
    """

    name: str = "screen crystals"
    settings: dict[str, Any] = field(default_factory=lambda: asdict(Settings()))
    resources: dict[str, Any] = field(default_factory=dict)
    folder: str = "campaign"
    num: int = 10

    @job
    def make(self, structures: list[Structure]) -> dict[str, Any]:
        """Screen structures of any origin."""
        folder, means = Path(self.folder), Resources(**self.resources)
        source = StructuresSource(lambda start: structures[start:], len(structures))
        if has_store(folder):
            own = Settings(**self.settings)
            potentials = [name for name in (own.relaxer, own.prefilter) if name is not None]
            campaign = Campaign.open(folder, source, means, potentials)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            campaign = Campaign.create(folder, source, Settings(**self.settings), means)
        with campaign:
            campaign.run()
            if campaign.interrupted:  # so that jobflow does not take the rest for the whole
                raise KeyboardInterrupt
            store = campaign.store
            write_files(store, seconds=campaign.seconds)
            ids = store.candidates(self.num)
            return {
                "funnel": [rate.as_dict() for rate in Tally(store.verdicts()).crystal_funnel()],
                "ranking": list(ranking(store, self.num)),
                "structures": [_structure(current_atoms(store.row(i))) for i in ids],
            }


@dataclass
class CandidatesMaker(Maker):
    """Send each of the best candidates into a Maker, such as one of atomate2.

    Attributes:
        name: of the job.
        maker: its `make(structure)` gives a job or flow.
        top: how many.
    """

    name: str = "candidates"
    maker: Maker = field(default_factory=Maker)
    top: int = 3

    @job
    def make(self, structures: list[Structure]) -> Response[Any]:
        """Replace this job by one a candidate; the output is the list of theirs."""
        jobs = [self.maker.make(structure) for structure in structures[: self.top]]
        if not jobs:
            return Response(output=[])
        return Response(replace=Flow(jobs, output=[each.output for each in jobs]))


@dataclass
class DiscoverFlowMaker(Maker):
    """Generate, screen, and hand the best over.

    Attributes:
        name: of the flow.
        generate: makes the structures; not used where they are given.
        screen: relaxes and ranks them.
        candidates: what to do with the best; None ends with the ranking.

    Examples:
        >>> from jobflow import run_locally
        >>> from adit_integrations.jobflow_makers import DiscoverFlowMaker
        >>> flow = DiscoverFlowMaker().make()
        >>> [each.name for each in flow.jobs]
        ['generate crystals', 'screen crystals']
    """

    name: str = "discover"
    generate: GenerateMaker = field(default_factory=GenerateMaker)
    screen: ScreenMaker = field(default_factory=ScreenMaker)
    candidates: CandidatesMaker | None = None

    def make(self, structures: list[Structure] | None = None) -> Flow:
        """Return the flow.

        Args:
            structures: in the place of generated ones.
        """
        jobs: list[Any] = []
        given: Any = structures
        if structures is None:
            generate = self.generate.make()
            jobs.append(generate)
            given = generate.output
        screen = self.screen.make(given)
        jobs.append(screen)
        output: Any = screen.output
        if self.candidates is not None:
            last = self.candidates.make(screen.output["structures"])
            jobs.append(last)
            output = {"screen": screen.output, "candidates": last.output}
        return Flow(jobs, output=output, name=self.name)


def _structure(atoms: Any) -> Structure:
    """Keep the provenance; energies are in the ranking."""
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms.calc = None
    structure: Structure = AseAtomsAdaptor.get_structure(atoms)
    return structure
