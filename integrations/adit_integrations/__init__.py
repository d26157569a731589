"""Third parties behind entry points, one a file; nothing is imported unless asked for.

Add a potential as a module with a factory that returns a `Relaxer` (see `mace`), named in
`pyproject.toml` under `adit.relaxers`. A package that it needs is an extra there, and a line of
`adit_plugins.registry.EXTRAS`.
"""
