"""What the numbers of known robots and benchmarks mean: features by name, one file each."""
