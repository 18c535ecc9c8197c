"""Which measured programs are worth training on: less data, the same accuracy."""
