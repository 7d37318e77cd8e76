"""Data sets, their splits, and the batches of a training."""
