"""What a model costs, and for which images."""
