"""CIFs as databases and programs write them, built from a few words."""

from __future__ import annotations

from collections.abc import Sequence

NACL_SITES = (
    "Na1 Na 0 0 0 1", "Na2 Na 0 .5 .5 1", "Na3 Na .5 0 .5 1", "Na4 Na .5 .5 0 1",
    "Cl1 Cl .5 .5 .5 1", "Cl2 Cl .5 0 0 1", "Cl3 Cl 0 .5 0 1", "Cl4 Cl 0 0 .5 1",
)  # fmt: skip
ASYMMETRIC = ("Na1 Na 0 0 0 1", "Cl1 Cl .5 .5 .5 1")
COLUMNS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
F_CENTRING = ("x,y,z", "x,1/2+y,1/2+z", "1/2+x,y,1/2+z", "1/2+x,1/2+y,z")


def cell_text(a: float, b: float, c: float, *angles: float) -> str:
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    return "".join(
        f"_cell_{name} {value:g}\n" for name, value in zip(names, (a, b, c, *angles), strict=True)
    )


def cif(
    sites: Sequence[str] = NACL_SITES,
    cell: Sequence[float] = (5.64, 5.64, 5.64, 90, 90, 90),
    name: str = "",
    number: int = 0,
    hall: str = "",
    operators: Sequence[str] = (),
    columns: Sequence[str] = COLUMNS,
    more: str = "",
    end: str = "",
    block: str = "data_x\n",
) -> str:
    """Return one data block."""
    text = block + (cell_text(*cell) if cell else "")
    if name:
        text += f"_symmetry_space_group_name_H-M {name if name == '?' else repr(name)}\n"
    if number:
        text += f"_symmetry_Int_Tables_number {number}\n"
    if hall:
        text += f"_space_group_name_Hall '{hall}'\n"
    text += more
    if operators:
        text += "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'{op}'\n" for op in operators)
    text += "loop_\n" + "".join(f"_atom_site_{column}\n" for column in columns)
    return text + "\n".join(sites) + "\n" + end
