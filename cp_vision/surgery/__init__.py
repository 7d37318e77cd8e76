"""Changing a model: inserting pools, dropping blocks."""
