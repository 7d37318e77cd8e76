"""Where a model's blocks and down-samplings are."""
