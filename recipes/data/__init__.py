"""Data sets, their splits, and the batches of a training."""

MAX_UNREADABLE = 10
"""Images of a split that may be unreadable where nobody says otherwise."""
