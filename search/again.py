"""The command of a search, to go on with."""

from __future__ import annotations

import shlex

__all__ = ["with_trials"]


def with_trials(command: str, trials: int) -> str:
    """A ``cp-search`` command for so many trials in place of those that it names; an empty one stays empty."""
    try:
        words = shlex.split(command)
    except ValueError:
        # Not the command line's own: whoever searches from Python may say what they like.
        return command
    if not words:
        return command
    words = [word for word in words if not word.startswith("--trials=")]
    while "--trials" in words:
        at = words.index("--trials")
        del words[at : at + 2]
    return shlex.join([*words, "--trials", str(trials)])
