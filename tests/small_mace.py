"""A real MACE of one small layer and random weights, for the relaxers' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ELEMENTS = [8, 11, 17, 29]


def save_small_mace(path: Path, scale: float = 0.1) -> Path:
    """Save it as mace-torch saves its models.

    Args:
        path: of the file.
        scale: eV; of the energies beside -3 eV an atom.
    """
    import torch

    from adit_integrations.mace import contained

    with contained():
        from e3nn import o3
        from mace import modules

        torch.manual_seed(0)
        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        network = modules.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=1,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=1,
            num_elements=len(ELEMENTS),
            hidden_irreps=o3.Irreps("8x0e"),
            MLP_irreps=o3.Irreps("4x0e"),
            atomic_energies=np.full(len(ELEMENTS), -3.0),
            avg_num_neighbors=10,
            atomic_numbers=ELEMENTS,
            correlation=1,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=scale,
            atomic_inter_shift=0.0,
        ).double()
    torch.save(network, path)
    return path
