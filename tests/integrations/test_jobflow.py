"""The flow of the same stages: runs locally and goes on into other Makers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

pytest.importorskip("jobflow")

import cheap_potential
from jobflow import Job, Maker, job, run_locally
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from adit_integrations.jobflow_makers import (
    CandidatesMaker,
    DiscoverFlowMaker,
    GenerateMaker,
    ScreenMaker,
)
from adit_plugins import ADiTGenerator
from adit_plugins.campaign import Campaign, Resources, Settings, StructuresSource

SETTINGS = asdict(Settings("cheap_potential:make", max_steps=3))
SCREEN = ScreenMaker(settings=SETTINGS, resources={"executor": "serial"}, num=4)


@dataclass
class CountMaker(Maker):
    """In the place of a DFT maker: takes a structure, gives a job."""

    name: str = "count"

    @job
    def make(self, structure: Structure) -> dict[str, object]:
        return {"sites": len(structure), "id": structure.properties["adit"]["id"]}


def test_given_structures_are_screened_ranked_and_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    atoms = cheap_potential.crystals(8)
    structures = [AseAtomsAdaptor.get_structure(each) for each in atoms]
    maker = DiscoverFlowMaker(screen=SCREEN, candidates=CandidatesMaker(maker=CountMaker(), top=2))
    flow = maker.make(structures)
    responses = run_locally(flow, create_folders=True, ensure_success=True, log=False)
    outputs = {
        each.name: responses[each.uuid][1].output for each in flow.jobs if isinstance(each, Job)
    }
    screened = outputs["screen crystals"]
    (tmp_path / "same").mkdir()
    source = StructuresSource(lambda start: structures[start:], len(structures))
    with Campaign.create(
        tmp_path / "same", source, Settings(**SETTINGS), Resources(executor="serial")
    ) as campaign:
        campaign.run()
        store = campaign.store
        ids = store.candidates(4)
        expected = [store.row(i)["energy_above_hull"] for i in ids]
    assert [row["energy_above_hull"] for row in screened["ranking"]] == expected
    assert screened["funnel"][0]["numerator"] == 8
    assert len(screened["structures"]) == len(expected) > 2
    handed = [
        response[1].output
        for response in responses.values()
        if isinstance(response[1].output, dict) and "sites" in response[1].output
    ]
    assert [each["id"] for each in handed] == [row["id"] for row in screened["ranking"][:2]]
    assert len(list(tmp_path.glob("job_*/campaign/results.db"))) == 1


def test_fresh_samples_and_the_recipe_survive_json(
    tiny_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = ADiTGenerator(checkpoint=tiny_checkpoint, num_steps=2, device="cpu")
    screen = ScreenMaker(settings=asdict(Settings(None)), resources={"executor": "serial"})
    maker = DiscoverFlowMaker(generate=GenerateMaker(generator=generator, num=3), screen=screen)
    again = DiscoverFlowMaker.from_dict(maker.as_dict())
    assert again == maker
    flow = again.make()
    responses = run_locally(flow, create_folders=True, ensure_success=True, log=False)
    made = responses[flow.jobs[0].uuid][1].output
    assert [each.properties["adit"]["index"] for each in made] == [0, 1, 2]
    assert responses[flow.jobs[1].uuid][1].output["ranking"] == []
