"""Symbols of the elements, for messages: the network itself knows numbers only."""

from __future__ import annotations

SYMBOLS = (  # noqa: SIM905 - a table of words; by atomic number, for messages
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge "
    "As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm "
    "Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U "
    "Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
).split(" ")


def named(numbers: frozenset[int]) -> str:
    """Symbols, shortened where there are many."""
    symbols = [SYMBOLS[z] for z in sorted(numbers)]
    if len(symbols) > 12:
        return f"{', '.join(symbols[:4])}, ... {symbols[-1]}: {len(symbols)} elements"
    return ", ".join(symbols)
