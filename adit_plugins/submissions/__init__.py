"""Files that benchmarks ask of a submission, and the runs that make them.

Add a benchmark as a module here that writes its files, and its command in
`adit_plugins.cli.submit`; data and metrics of its own come by the entry point `adit.benchmarks`.
`shards` cuts long relaxations into parts that run anywhere; `model_file` is Matbench Discovery's.
"""
