"""Own MuJoCo tasks: scenes composed from parts, tasks written over batches, one or many environments of them."""
