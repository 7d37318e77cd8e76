"""Who runs the trials: this process, or Ray Tune."""
