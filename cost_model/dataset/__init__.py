"""Measured programs as columns: what training, pruning and statistics read, whatever log they came from."""
