"""What is known of processors and GPUs, in numbers that a model can compare."""
