"""Files that benchmarks ask of a submission, and the runs that make them."""
