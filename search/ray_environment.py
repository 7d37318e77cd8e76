"""What Ray is told by the environment, which it reads when it is imported."""

from __future__ import annotations

import os

__all__ = ["prepare_environment"]

_SETTINGS = {
    # Its older, plain output: ours is the only progress bar.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Paths in recipes are those of the command's own folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The record is the study's; nothing is logged twice.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C ends the search as it does without Ray.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def prepare_environment() -> None:
    """Set what the user has not set; call it before Ray is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
