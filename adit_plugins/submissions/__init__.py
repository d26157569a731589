"""Files that benchmarks ask of a submission, and the runs that make them: add a benchmark here.

`shards` cuts the long ones into parts that run anywhere.
"""
