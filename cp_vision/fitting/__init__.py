"""Fitting stand-ins to the blocks that they replace, in closed form and without labels."""
