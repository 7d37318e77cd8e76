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
    words = [f"--trials={trials}" if word.startswith("--trials=") else word for word in words]
    if "--trials" in words:
        place = words.index("--trials") + 1
        words[place : place + 1] = [str(trials)]
    elif f"--trials={trials}" not in words:
        words += ["--trials", str(trials)]
    return shlex.join(words)
