"""The network: sizes by name, the published architecture, seeds, checkpoints and bad input."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from adit_model import ADiT, ADiTConfig, AtomBatch
from adit_model.batch import (
    lattice_from_parameters,
    lattice_parameters,
    principal_frame,
    random_rotations,
)
from adit_model.checkpoints.folder import CheckpointError
from adit_model.config import KINDS, AutoencoderConfig, DenoiserConfig, published, sized

HISTOGRAM = {"crystal": [0, 1, 3, 3, 2], "molecule": [0, 0, 0, 2, 4, 1]}


def tiny(**denoiser: object) -> ADiT:
    torch.manual_seed(0)
    config = ADiTConfig(
        name="tiny",
        autoencoder=AutoencoderConfig(
            width=32,
            num_heads=2,
            encoder_depth=1,
            decoder_depth=1,
            mlp_width=64,
            lattice_input=True,
            input_frame="standard",
        ),
        denoiser=DenoiserConfig(width=32, depth=2, num_heads=2, **denoiser),  # type: ignore[arg-type]
        size_histogram=HISTOGRAM,
    )
    model = ADiT(config).eval()
    with torch.no_grad():  # a fresh denoiser answers zero everywhere; make it say something
        for parameter in model.denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def crystals(num: int = 3, atoms: int = 4) -> AtomBatch:
    generator = torch.Generator().manual_seed(1)
    frac = torch.rand(num, atoms, 3, generator=generator)
    lengths = 3 + 4 * torch.rand(num, 3, generator=generator)
    angles = torch.deg2rad(70 + 40 * torch.rand(num, 3, generator=generator))
    lattice = lattice_from_parameters(lengths, angles)
    return AtomBatch(
        torch.randint(1, 90, (num, atoms), generator=generator),
        frac,
        frac @ lattice,
        lattice,
        torch.ones(num, dtype=torch.bool),
        torch.ones(num, atoms, dtype=torch.bool),
    )


def test_lattice_parameters_round_trip() -> None:
    lattice = crystals().lattice
    again = lattice_from_parameters(*lattice_parameters(lattice))
    torch.testing.assert_close(again, lattice, atol=1e-4, rtol=1e-4)


def test_lattice_convention_is_pymatgens() -> None:
    from pymatgen.core import Lattice

    ours = lattice_from_parameters(
        torch.tensor([3.0, 4.0, 5.0]), torch.deg2rad(torch.tensor([80.0, 95.0, 110.0]))
    )
    theirs = Lattice.from_parameters(3, 4, 5, 80, 95, 110).matrix
    torch.testing.assert_close(ours.double(), torch.tensor(theirs), atol=1e-5, rtol=1e-5)


def test_impossible_angles_have_no_volume() -> None:
    lattice = lattice_from_parameters(torch.full((3,), 5.0), torch.tensor([0.3, 0.3, 2.9]))
    assert torch.isfinite(lattice).all()
    assert abs(float(torch.linalg.det(lattice))) < 0.1


def test_principal_frame_forgets_orientation_but_not_chirality() -> None:
    generator = torch.Generator().manual_seed(3)
    molecules = torch.randn(20, 7, 3, generator=generator)
    turned = molecules @ random_rotations(20, generator, torch.device("cpu")) + 5.0
    torch.testing.assert_close(
        principal_frame(turned), principal_frame(molecules), atol=1e-4, rtol=1e-4
    )
    mirrored = molecules * torch.tensor([-1.0, 1.0, 1.0])
    apart = (principal_frame(mirrored) - principal_frame(molecules)).abs().amax(dim=(1, 2))
    assert (apart > 0.1).all()


def test_sample_depends_on_seed_and_index_alone() -> None:
    model = tiny()
    together = model.sample(8, num_steps=5, seed=3)
    alone = model.sample(1, num_steps=5, seed=3, indices=[6])
    size = int(alone.num_atoms[0])
    assert int(together.num_atoms[6]) == size
    assert torch.equal(together.atomic_numbers[6, :size], alone.atomic_numbers[0])
    torch.testing.assert_close(together.positions[6, :size], alone.positions[0], atol=1e-3, rtol=0)
    other = model.sample(8, num_steps=5, seed=4)
    assert not torch.equal(other.num_atoms, together.num_atoms) or not torch.allclose(
        other.positions, together.positions
    )


@pytest.mark.parametrize("sampler", ["ancestral", "euler", "heun"])
def test_samples_of_both_kinds_have_their_parts(sampler: str) -> None:
    model = tiny()
    crystal = model.sample(3, kind="crystal", num_steps=3, sampler=sampler)
    assert crystal.periodic.all() and (crystal.lattice.det().abs() >= 0).all()
    assert ((crystal.frac_coords >= 0) & (crystal.frac_coords <= 1)).all()
    molecule = model.sample(3, kind="molecule", num_steps=3, num_atoms=[3, 5, 4], sampler=sampler)
    assert molecule.num_atoms.tolist() == [3, 5, 4]
    assert not molecule.periodic.any()
    assert (molecule.lattice == 0).all() and (molecule.frac_coords == 0).all()
    assert (molecule.positions.sum(dim=1).abs() < 1e-4).all()


def test_steps_of_a_perfect_denoiser_end_at_the_data() -> None:
    from adit_model.samplers import SAMPLERS, time_points

    target = torch.randn(2, 3, 8)
    for sampler in SAMPLERS.values():
        x = torch.randn(2, 3, 8)
        times = time_points(7)
        for t, after in pairwise(times):
            x = sampler.step(lambda *_: target, x, t, after, lambda _: torch.randn(2, 3, 8))
        torch.testing.assert_close(x, target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_noise_has_the_deviation_of_its_time(kind: str, monkeypatch: Any) -> None:
    from adit_model.samplers import run as samplers
    from adit_model.sampling import KindSampling

    own = KindSampling(fresh_noise=((0.4, 0.5), (1.0, 0.8)))
    model = tiny()
    model.config = dataclasses.replace(model.config, sampling={kind: own})
    drawn: dict[float, list[torch.Tensor]] = {}
    source = samplers.noise_source

    def recorded(*arguments: Any) -> Any:
        draw = source(*arguments)
        return lambda t: drawn.setdefault(t, []).append(draw(t)) or drawn[t][-1]

    monkeypatch.setattr(samplers, "noise_source", recorded)
    model.sample(200, kind=kind, num_steps=6, num_atoms=4, seed=1)
    assert len(drawn) == 5  # the last step adds none
    for t, noises in drawn.items():
        wanted = next(size for until, size in own.fresh_noise if t <= until)
        assert float(torch.cat(noises).std()) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num": 2, "kind": "polymer"}, ["polymer", "crystal", "molecule"]),
        ({"num": 0}, ["num", "0"]),
        ({"num": -3}, ["-3"]),
        ({"num": 2, "num_atoms": 99}, ["99", "1..4"]),
        ({"num": 2, "num_atoms": [2]}, ["1 entries", "2 samples"]),
        ({"num": 2, "num_steps": 0}, ["num_steps", "0"]),
        ({"num": 2, "seed": -1}, ["seed", "-1"]),
        ({"num": 2.0}, ["num", "2.0"]),
        ({"num": float("inf")}, ["num", "inf"]),
        ({"num": 2, "batch_size": 1.0}, ["batch_size", "1.0"]),
        ({"num": 2, "num_atoms": 2.0}, ["num_atoms", "2.0", "1..4"]),
        ({"num": 2, "num_atoms": "ab"}, ["num_atoms", "ab"]),
        ({"num": 2, "indices": [0.5, 1]}, ["indices", "0.5"]),
        ({"num": 2, "guidance_scale": "2"}, ["guidance_scale", "'2'"]),
        ({"num": 2, "sampler": "magic"}, ["magic", "euler"]),
        ({"num": 2, "guidance_scale": float("nan")}, ["guidance_scale", "nan"]),
        ({"num": 2, "conditions": {"band_gap": 1}}, ["band_gap", "none"]),
        ({"num": 2, "noise": [torch.zeros(1, 8)] * 2, "num_atoms": 3}, ["noise", "(3, 8)"]),
    ],
)
def test_bad_requests_name_the_value_and_what_is_allowed(arguments: dict, words: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        tiny().sample(**arguments)
    for word in words:
        assert word in str(error.value)


def test_encoding_ignores_the_orientation_of_a_crystal_and_the_place_of_a_molecule() -> None:
    model, batch = tiny(), crystals()
    turn = random_rotations(3, torch.Generator().manual_seed(0), torch.device("cpu"))
    turned = dataclasses.replace(
        batch, lattice=batch.lattice @ turn, positions=batch.positions @ turn
    )
    torch.testing.assert_close(model.encode(turned)[0], model.encode(batch)[0], atol=1e-3, rtol=0)
    free = dataclasses.replace(
        batch,
        periodic=torch.zeros(3, dtype=torch.bool),
        frac_coords=torch.zeros_like(batch.frac_coords),
        lattice=torch.zeros_like(batch.lattice),
    )
    moved = dataclasses.replace(free, positions=free.positions + 7.0)
    torch.testing.assert_close(model.encode(moved)[0], model.encode(free)[0], atol=1e-3, rtol=0)


def test_padding_changes_nothing() -> None:
    model, small, large = tiny(), crystals(2, 3), crystals(2, 5)
    both = AtomBatch.concatenate([small, large])
    mean, _ = model.encode(both)
    torch.testing.assert_close(mean[:2, :3], model.encode(small)[0], atol=1e-4, rtol=1e-4)
    again = model.reconstruct(both)
    torch.testing.assert_close(
        again.lattice[:2], model.reconstruct(small).lattice, atol=1e-3, rtol=1e-3
    )
    assert (again.atomic_numbers[:2, 3:] == 0).all()


def test_checkpoint_round_trip_gives_identical_samples(tmp_path: Path) -> None:
    model = tiny(modulation="shared", prediction="preconditioned", time_scale=10.0)
    model.save_pretrained(tmp_path / "ckpt")
    again = ADiT.from_pretrained(tmp_path / "ckpt", device="cpu")
    assert again.config == model.config
    assert len(again.hash) == 12
    before, after = model.sample(4, num_steps=4), again.sample(4, num_steps=4)
    assert torch.equal(before.positions, after.positions)
    assert torch.equal(before.atomic_numbers, after.atomic_numbers)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "config", "shape", "index"])
def test_damaged_checkpoints_are_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "ckpt"
    tiny().save_pretrained(folder)
    [shard] = folder.glob("model-00000-*.safetensors")
    data = bytearray(shard.read_bytes())
    if damage == "truncate":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-1] ^= 1
        shard.write_bytes(data)
    elif damage == "remove":
        shard.unlink()
    elif damage == "config":
        (folder / "config.json").write_text('{"name": "x", "colour": "red"}')
    elif damage == "index":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"shards": []}))
    else:
        config = json.loads((folder / "config.json").read_text())
        config["denoiser"]["width"] = 64
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        ADiT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("autoencoder", "width", "32"),
        ("autoencoder", "width", -32),
        ("autoencoder", "width", 10**9),
        ("autoencoder", "input_frame", "upside down"),
        ("denoiser", "num_heads", 0),
        ("denoiser", "prediction", "guess"),
        ("denoiser", "time_scale", "100"),
        ("denoiser", "conditions", [{"name": "k.ind", "size": 2}]),
        ("size_histogram", "crystal", [5, 1]),
        ("size_histogram", "crystal", [0, -1]),
        ("size_histogram", "polymer", [0, 1]),
        (None, "flow", None),
        (None, "autoencoder", None),
        (None, "size_histogram", [0, 1]),
        (None, "name", ""),
    ],
)
def test_impossible_configurations_are_refused(
    tmp_path: Path, part: str | None, field: str, value: object
) -> None:
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (config if part is None else config[part])[field] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        ADiT.from_pretrained(tmp_path)


def test_given_sizes_need_no_histogram() -> None:
    model = tiny()
    object.__setattr__(model.config, "size_histogram", {"crystal": []})
    assert model.sample(2, num_steps=1, num_atoms=3).num_atoms.tolist() == [3, 3]


def test_unknown_checkpoint_names_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"mp21.*Known"):
        ADiT.from_pretrained("mp21")


def test_published_architecture_has_the_published_names_and_shapes() -> None:
    shapes = {k: tuple(v.shape) for k, v in ADiT(published("S")).state_dict().items()}
    expected = {
        "autoencoder.encoder.atom_type_embedder.weight": (100, 512),
        "autoencoder.encoder.pos_embedder.0.weight": (512, 3),
        "autoencoder.encoder.pos_embedder.2.bias": (512,),
        "autoencoder.encoder.transformer.layers.7.self_attn.in_proj_weight": (1536, 512),
        "autoencoder.encoder.transformer.layers.0.linear1.weight": (2048, 512),
        "autoencoder.encoder.transformer.norm.weight": (512,),
        "autoencoder.quant_conv.weight": (16, 512),
        "autoencoder.post_quant_conv.weight": (512, 8),
        "autoencoder.decoder.atom_types_head.bias": (100,),
        "autoencoder.decoder.lattice_head.weight": (6, 512),
        "denoiser.x_embedder.weight": (384, 16),
        "denoiser.t_embedder.mlp.0.weight": (384, 256),
        "denoiser.condition_embedders.kind.embedding_table.weight": (3, 384),
        "denoiser.condition_embedders.space_group.embedding_table.weight": (231, 384),
        "denoiser.blocks.11.attn.out_proj.bias": (384,),
        "denoiser.blocks.0.adaLN_modulation.1.weight": (2304, 384),
        "denoiser.final_layer.adaLN_modulation.1.weight": (768, 384),
        "denoiser.final_layer.linear.weight": (8, 384),
    }
    assert {k: shapes.get(k) for k in expected} == expected
    assert "autoencoder.encoder.lattice_embedder.0.weight" not in shapes


def test_pre_norm_layers_compute_what_torch_computes() -> None:
    """The published weights are torch's `nn.TransformerEncoder`; ours must agree with it."""
    from adit_model.layers import Transformer

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        64,
        4,
        128,
        0.0,
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    )
    theirs = torch.nn.TransformerEncoder(
        layer, 2, torch.nn.LayerNorm(64), enable_nested_tensor=False
    ).eval()
    ours = Transformer(64, 2, 4, 128)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 6, 64)
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask)[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_shared_modulation_saves_weights() -> None:
    width, depth, heads = sized("S")
    sizes = {}
    for modulation in ("block", "shared"):
        model = ADiT(
            ADiTConfig(denoiser=DenoiserConfig(width, depth, heads, modulation=modulation))
        )  # type: ignore[arg-type]
        sizes[modulation] = sum(p.numel() for p in model.denoiser.parameters())
    assert sizes["shared"] < 0.71 * sizes["block"]


def test_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"XL.*S, B, L"):
        sized("XL")
