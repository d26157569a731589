"""Evaluation of sets of crystals and molecules from any generator: `adit evaluate`.

`evaluate_crystals` (`.crystals`) and `evaluate_molecules` (`.molecules`) score structures,
`evaluate_files` (`.evaluation`) whole files. `add_stability` and `add_reconstruction` add what
needs a potential or target structures. Every rate (`.rates`) has its numerator and denominator.
The modules are imported one by one: a molecule needs none of what a crystal needs.

Add a rate to `crystals` or `molecule_rates`; what it asks of one structure is a predicate in
`adit_plugins.validity`, which counts where it is called: `crystals._fill` here, `campaign.work`,
`hosts.filters` and `report.results`.
"""
