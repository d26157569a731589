"""CIFs of databases, programs and people give the right crystal or a reason, never another one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from cif_texts import ASYMMETRIC, COLUMNS, F_CENTRING, NACL_SITES, cif

from adit_plugins.structures.cif import parse_cifs
from adit_plugins.structures.entries import Entry

P1 = {"name": "P 1", "number": 1, "operators": ("x, y, z",)}
RHOMB = (4.7459, 4.7459, 4.7459, 57.23, 57.23, 57.23)
HEX = (4.546, 4.546, 11.862, 90, 90, 120)
MONO = (7, 8, 9, 90, 100, 90)
DALTON = 1.66053907


def entries(text: str) -> list[Entry]:
    return list(parse_cifs(io.StringIO(text), "in.cif"))


def read(text: str) -> Atoms:
    (entry,) = entries(text)
    assert entry.atoms is not None, entry.reason
    assert entry.kind == "crystal"
    return entry.atoms


def reason(text: str) -> str:
    (entry,) = entries(text)
    assert entry.atoms is None, entry.atoms
    assert entry.reason
    return entry.reason


def density(atoms: Atoms) -> float:
    return float(DALTON * atoms.get_masses().sum() / atoms.get_volume())


SI_CELL = (5.43, 5.43, 5.43, 90, 90, 90)
SI_1, SI_2 = ("Si1 Si 0 0 0 1",), ("Si1 Si .125 .125 .125 1",)
LA = {"sites": ("La1 La .99 .03 .25 1",), "cell": (5.4, 5.5, 7.7, 90, 90, 90)}
BI_R, BI_H = ("Bi1 Bi .2339 .2339 .2339 1",), ("Bi1 Bi 0 0 .2339 1",)
NA = ("Na1 Na .1 .2 .3 1",)


@pytest.mark.parametrize(
    ("settings", "formula", "grams"),
    [
        ({"sites": SI_1, "cell": SI_CELL, "name": "F d -3 m :1", "number": 227}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "F d -3 m :2", "number": 227}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "F d -3 m Z"}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "Fd-3mZ", "number": 227}, "Si8", 2.33),
        ({"sites": SI_1, "cell": SI_CELL, "name": "F d -3 m S"}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "F 41/d -3 2/m :2"}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "F d -3 m", "number": 227,
          "more": "_symmetry_space_group_setting 2\n"}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "F d -3 m", "number": 227,
          "more": "_space_group_IT_coordinate_system_code 2\n"}, "Si8", 2.33),
        # nothing says which origin, but one alone has eight atoms or the right density
        ({"sites": SI_2, "cell": SI_CELL, "name": "F d -3 m",
          "more": "_chemical_formula_sum Si\n_cell_formula_units_Z 8\n"}, "Si8", 2.33),
        ({"sites": SI_2, "cell": SI_CELL, "name": "F d -3 m",
          "more": "_exptl_crystal_density_diffrn 2.33(1)\n"}, "Si8", 2.33),
        ({"sites": BI_R, "cell": RHOMB, "name": "R -3 m :R", "number": 166}, "Bi2", 9.81),
        ({"sites": BI_R, "cell": RHOMB, "name": "R -3 m R"}, "Bi2", 9.81),
        ({"sites": BI_R, "cell": RHOMB, "name": "R -3 m", "number": 166}, "Bi2", 9.81),
        ({"sites": BI_R, "cell": RHOMB, "number": 166}, "Bi2", 9.81),
        ({"sites": BI_H, "cell": HEX, "name": "R -3 m :H", "number": 166}, "Bi6", 9.81),
        ({"sites": BI_H, "cell": HEX, "name": "R-3mH"}, "Bi6", 9.81),
        ({"sites": BI_H, "cell": HEX, "name": "R -3 m"}, "Bi6", 9.81),
        ({**LA, "name": "P b n m", "number": 62}, "La4", 4.03),
        ({**LA, "name": "Pbnm"}, "La4", 4.03),
        ({"sites": NA, "cell": MONO, "name": "I 1 2/a 1", "number": 15}, "Na8", 0.62),
        ({"sites": NA, "cell": MONO, "name": "I 2/a"}, "Na8", 0.62),
        ({"sites": NA, "cell": MONO, "name": "P 21/n"}, "Na4", 0.31),
        ({"sites": NA, "cell": MONO, "name": "P2(1)/n", "number": 14}, "Na4", 0.31),
        ({"sites": NA, "cell": MONO, "name": "P 1 2_1/n 1"}, "Na4", 0.31),
        ({"sites": NA, "cell": (7, 8, 9, 90, 90, 100), "name": "P 21/b"}, "Na4", 0.31),
        ({"sites": ASYMMETRIC, "hall": "-F 4 2 3"}, "Cl4Na4", 2.16),
        ({"sites": ASYMMETRIC, "name": "Fm-3m"}, "Cl4Na4", 2.16),
        ({"sites": ASYMMETRIC, "name": "FM-3M"}, "Cl4Na4", 2.16),
        ({"sites": ASYMMETRIC, "name": "F m 3 m"}, "Cl4Na4", 2.16),
        ({"sites": ASYMMETRIC, "name": "F 4/m -3 2/m"}, "Cl4Na4", 2.16),
        ({"sites": ASYMMETRIC, "number": 225}, "Cl4Na4", 2.16),
    ],
)  # fmt: skip
def test_without_operators_the_setting_counts(
    settings: dict[str, object], formula: str, grams: float
) -> None:
    atoms = read(cif(**settings))  # type: ignore[arg-type]
    assert atoms.get_chemical_formula() == formula
    assert density(atoms) == pytest.approx(grams, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sites": SI_1, "cell": SI_CELL, "name": "F d -3 m"}, "two origins or settings"),
        ({"sites": ASYMMETRIC, "name": "Q m -3 m"}, "'Q m -3 m' is not known"),
        ({"sites": ASYMMETRIC, "name": "F m -3 m", "number": 12}, "no setting F m -3 m number 12"),
        ({"sites": ASYMMETRIC, "name": "F m -3 m", "number": 1}, "no setting F m -3 m number 1"),
        ({"sites": ASYMMETRIC, "number": 231}, "no space group number 231"),
        ({"sites": ASYMMETRIC, "hall": "-F 9"}, "Hall symbol"),
        ({"sites": ASYMMETRIC, "cell": MONO, "name": "F m -3 m"}, "does not have the symmetry"),
        ({"sites": ASYMMETRIC, "name": "F m -3 m", "operators": ("x,y,z",)}, "but x,y,z"),
    ],
)  # fmt: skip
def test_an_unclear_setting_is_refused(settings: dict[str, object], words: str) -> None:
    assert words in reason(cif(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "operators",
    [
        F_CENTRING,
        tuple(op.upper() for op in F_CENTRING),
        ("x,y,z", "x,0.5+y,z+.5", ".5+x,y,z+0.5", "x+0.5,y+0.5,z"),
        F_CENTRING[1:],  # the identity goes without saying
        (*F_CENTRING, *F_CENTRING),
    ],
)
@pytest.mark.parametrize("name", ["", "?", "F 2 3 of my own"])
def test_operators_need_no_name(operators: tuple[str, ...], name: str) -> None:
    assert read(cif(ASYMMETRIC, name=name, operators=operators)).get_chemical_formula() == "Cl4Na4"


def test_operators_without_quotes_and_in_pieces() -> None:
    whole = cif(ASYMMETRIC, operators=F_CENTRING)
    assert len(read(whole.replace("'", ""))) == 8
    assert len(read(whole.replace("'", "").replace(",", ", "))) == 8


def test_magnetic_operators_move_atoms_alike() -> None:
    head = "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,-1\n"
    head += "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\nx+1/2,y+1/2,z+1/2,-1\n"
    assert len(read(cif(("Fe1 Fe .1 .2 .3 1",), more=head))) == 4


@pytest.mark.parametrize(
    ("operators", "words"),
    [(F_CENTRING[:3], "no group"), (("x,y,z", "x,y,q"), "cannot be read")],
)
def test_damaged_operators_are_refused(operators: tuple[str, ...], words: str) -> None:
    assert words in reason(cif(ASYMMETRIC, operators=operators))


def with_sites(*sites: str, columns: tuple[str, ...] = COLUMNS) -> str:
    return cif(sites, name="F m -3 m", columns=columns)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (cif(("Na1 Na 0 0 0 .5", "K1 K 0 0 0 .5", *NACL_SITES[1:]), **P1), "shared (Na 0.5, K"),
        (cif(("Na1 Na 0 0 0 .5", *NACL_SITES[1:]), **P1), "partly empty (Na 0.5)"),
        (with_sites("Na1 Na 0 0 0 1", "K1 K 0 0 0 1", "Cl1 Cl .5 .5 .5 1"), "shared (Na 1, K 1)"),
        # an image of the other, not the same place
        (with_sites("Na1 Na 0 0 0 1", "K1 K .5 .5 0 1", "Cl1 Cl .5 .5 .5 1"), "shared (Na 1, K 1)"),
        (with_sites("Na1 Na 0 0 0", "K1 K 0 0 0", "Cl1 Cl .5 .5 .5", columns=COLUMNS[:-1]),
         "shared (Na 1, K 1)"),
        (with_sites("Na1 Na 0 0 0 1", "K1 K .0005 0 0 1", "Cl1 Cl .5 .5 .5 1"), "shared"),
    ],
)  # fmt: skip
def test_disorder_is_a_reason(text: str, words: str) -> None:
    message = reason(text)
    assert "it is disordered" in message and words in message


@pytest.mark.parametrize("occupancy", ["?", ".", "0.9999", "1.0000(5)", "1.0"])
def test_an_occupancy_that_means_one(occupancy: str) -> None:
    text = cif((f"Na1 Na 0 0 0 {occupancy}", *NACL_SITES[1:]), **P1)  # type: ignore[arg-type]
    assert read(text).get_chemical_formula() == "Cl4Na4"


def test_an_empty_site_is_absent_and_two_halves_of_an_element_are_one() -> None:
    assert len(read(cif((*NACL_SITES, "H1 H .25 .25 .25 0"), **P1))) == 8  # type: ignore[arg-type]
    halves = ("Fe1 Fe2+ 0 0 0 .5", "Fe2 Fe3+ 0 0 0 .5", "O1 O2- .5 .5 .5 1")
    assert read(cif(halves, name="F m -3 m")).get_chemical_formula() == "Fe4O4"


@pytest.mark.parametrize("occupancy", ["-0.5", "2", "x"])
def test_an_impossible_occupancy_is_refused(occupancy: str) -> None:
    text = cif((f"Na1 Na 0 0 0 {occupancy}", *NACL_SITES[1:]), **P1)  # type: ignore[arg-type]
    assert "occupancy of its site Na1" in reason(text)


@pytest.mark.parametrize(
    ("symbols", "formula"),
    [
        (("NA", "CL"), "Cl4Na4"), (("na", "cl"), "Cl4Na4"), (("Na+", "Cl1-"), "Cl4Na4"),
        (("CU", "S2-"), "Cu4S4"), (("SC", "F"), "F4Sc4"), (("CO", "O"), "Co4O4"),
    ],
)  # fmt: skip
def test_symbols_in_any_case(symbols: tuple[str, str], formula: str) -> None:
    sites = (f"a {symbols[0]} 0 0 0 1", f"b {symbols[1]} .5 .5 .5 1")
    assert read(cif(sites, name="F m -3 m")).get_chemical_formula() == formula


@pytest.mark.parametrize(
    ("labels", "formula"),
    [
        (("CA1", "O1"), "Ca4O4"), (("CU1", "S1"), "Cu4S4"), (("SC1", "FE2"), "Fe4Sc4"),
        (("Na", "Cl(2)"), "Cl4Na4"), (("FE", "O2W"), "Fe4O4"), (("Hw1", "Ow1"), "H4O4"),
    ],
)  # fmt: skip
def test_labels_alone_are_read_as_pymatgen_does(labels: tuple[str, str], formula: str) -> None:
    columns = ("label", *COLUMNS[2:])
    sites = (f"{labels[0]} 0 0 0 1", f"{labels[1]} .5 .5 .5 1")
    assert read(cif(sites, name="F m -3 m", columns=columns)).get_chemical_formula() == formula


def test_the_formula_tells_what_a_label_means() -> None:
    columns, sites = ("label", *COLUMNS[2:]), ("CA1 0 0 0 1", "O1 .5 .5 .5 1")
    text = cif(sites, name="F m -3 m", columns=columns, more="_chemical_formula_sum 'C O'\n")
    assert read(text).get_chemical_formula() == "C4O4"


@pytest.mark.parametrize("symbol", ["D", "T", "Xx", "OH", "X", "?"])
def test_isotopes_and_what_is_no_element_are_refused(symbol: str) -> None:
    message = reason(cif(("Li1 Li 0 0 0 1", f"?1 {symbol} .5 .5 .5 1"), **P1))  # type: ignore[arg-type]
    assert ("isotopes" in message) == (symbol in "DT")


DETAILS = "_iucr_refine_fcf_details\n;\ndata_1\n_cell_length_a 5.64\n;\n"
REFLECTIONS = "   1   0   0    0.10    0.01\n" * 21_600


@pytest.mark.parametrize(
    "text",
    [
        cif(**P1, end=DETAILS),
        cif(**P1, more="_refine_details\n;\ndata_reduction was done twice\nloop_ nothing\n;\n"),
        cif(**P1, end=f"_shelx_hkl_file\n;\n{REFLECTIONS};\n"),
        cif(**P1, end=f"_shelx_hkl_file\n;\n{REFLECTIONS};\n_shelx_hkl_checksum 1\n"),
        cif(**P1, end="loop_\n_refln_index_h\n_refln_index_k\n_refln_index_l\n_refln_F_meas\n"
            "_refln_F_sigma\n" + REFLECTIONS + "_a 1\n"),
        cif(**P1, block="data_global\n_journal_name x\n_cell_length_a ?\n\ndata_NaCl\n"),
        cif(**P1, end="data_fcf\n_cell_length_a 5.64\nloop_\n_refln_index_h\n1\n"),
        "# a comment\n\n" + cif(**P1),
        cif(**P1, more="_publ_author_name 'M\ufffdller, K.'\n_exptl_crystal_colour gr\u00fcn\n"),
        cif(**P1, more="_chemical_name_common rock salt\n_chemical_formula_moiety [NaCl]\n"),
        cif(**P1, end="_adit_provenance\n;\n{\"id\": 1\n;\n"),
        cif(**P1).replace("\n", "\r\n"),
        cif(**P1).replace("_cell_", "_CELL_").replace("loop_", "LOOP_"),
        cif(**P1).replace("5.64", "5.640(2)"),
    ],
)  # fmt: skip
def test_what_stands_beside_a_structure_does_not_spoil_it(text: str) -> None:
    assert read(text).get_chemical_formula() == "Cl4Na4"


def test_a_lost_end_of_a_text_field_costs_one_block() -> None:
    blocks = [cif(**P1, end="_a\n;\ntext\n;\n", block=f"data_{i}\n") for i in range(6)]  # type: ignore[arg-type]
    for lost in ("text\n;\n", ";\ntext\n"):
        damaged = [*blocks[:2], blocks[2].replace(lost, "text\n"), *blocks[3:]]
        found = entries("".join(damaged))
        assert [entry.atoms is not None for entry in found] == [True] * 2 + [False] + [True] * 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("_chemical_formula_sum 'H4 Li4 O4'\n", "its formula is"),
        ("_chemical_formula_sum 'Na4 Cl3'\n", "its formula is"),
        ("_chemical_formula_sum 'Na8 Cl8'\n", "its formula is Na8 Cl8"),
        ("_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 2\n", "Z = 2"),
        ("_exptl_crystal_density_diffrn 4.3\n", "density is 2.16 g/cm3"),
    ],
)
def test_what_the_file_says_of_its_composition_is_compared(more: str, words: str) -> None:
    assert words in reason(cif(**P1, more=more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        "_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 4\n",  # pymatgen's
        "_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 4\n",
        "_chemical_formula_sum NaCl\n",
        "_chemical_formula_sum 'CL1.00 NA1.00'\n",
        "_chemical_formula_sum ?\n_cell_formula_units_Z ?\n",
        "_chemical_formula_sum 'Na (Cl)'\n",  # no sum formula: nothing to compare
        "_exptl_crystal_density_diffrn 2.17\n",
        "_exptl_crystal_density_diffrn 2165\n",
    ],
)
def test_what_agrees_is_read(more: str) -> None:
    assert len(read(cif(**P1, more=more))) == 8  # type: ignore[arg-type]


def test_imprecise_special_positions_are_one_atom_each() -> None:
    sites = ("C1 C 0 0 .25 1", "C2 C .333 .667 .25 1")
    atoms = read(cif(sites, (2.46, 2.46, 6.71, 90, 90, 120), "P 63/m m c", 194))
    assert len(atoms) == 4
    np.testing.assert_allclose(atoms.get_scaled_positions()[2], [1 / 3, 2 / 3, 0.25], atol=1e-9)
    # two atoms that the file puts so near to each other stay two
    collided = read(cif(("C1 C 0 0 0 1", "C2 C 0 0 .02 1"), (3, 3, 3, 90, 90, 90), **P1))  # type: ignore[arg-type]
    assert len(collided) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (cif(**P1, cell=()), "no cell: _cell_length_a"),
        (cif(**P1).replace("_cell_angle_gamma 90\n", ""), "no cell: _cell_angle_gamma"),
        (cif(**P1, cell=(5, 5, 5, 90, 90, 190)), "impossible"),
        (cif(**P1, cell=(5, 5, 5, 30, 30, 170)), "impossible"),
        (cif(("Na1 Na ? ? ? 1",), **P1), "no coordinates"),
        (cif(**P1, columns=("label", "type_symbol", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy")),
         "no fractional coordinates"),
        (cif(("O1 O 0 0 0 2",), **P1, columns=(*COLUMNS[:5], "attached_hydrogens")), "hydrogen"),
        (cif(**P1)[:-12], "no sound CIF"),
        ("data_x\n_cell_length_a 3\n", "no cell: _cell_length_b"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(text: str, words: str) -> None:
    assert words in reason(text)
