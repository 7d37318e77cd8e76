"""The foot of the report: the commands that make the study again and go on with it, and what the words mean."""

from __future__ import annotations

from ...types import Results
from .format import esc, finite
from .words import limit_as_written, limits_of, shared, tally


def _command(title: str, command: str) -> str:
    """One command; the page's script adds a button that copies it."""
    return (
        f'<div class="command"><h3>{esc(title)}</h3>'
        f'<pre tabindex="0" aria-label="{esc(title)}"><code>{esc(command)}</code></pre></div>'
    )


def _hours(results: Results) -> str:
    hours = sum(finite(c.seconds) or 0.0 for c in results.candidates) / 3600
    return f"{hours:.1f} hours in all" if hours >= 1 else f"{60 * hours:.0f} minutes in all"


def _facts(results: Results) -> list[tuple[str, object]]:
    return [
        ("base", results.base),
        ("data set", results.dataset),
        ("recipe", results.recipe),
        ("seed", results.seed),
        *(("budget", limit_as_written(limit)) for limit in limits_of(results)),
        *([] if results.keep_accuracy is None else [("accuracy to keep", f"{results.keep_accuracy:g} points")]),
        ("evaluator", results.evaluator),
        ("candidates", tally(results)),
        ("scoring" if results.evaluator != "train" else "training", _hours(results)),
    ]


def _words(results: Results) -> list[str]:
    """What the words of the page mean."""
    words = [
        "MACs: one multiply-add counts one, the figure papers print as FLOPs.",
        "Validation accuracy: top-1 on the validation split, which chose the winner. "
        "Test accuracy: top-1 on the test split, which chose nothing.",
        "Pareto front: the candidates that no other beats in both accuracy and MACs.",
    ]
    if shared(results):
        words.append(
            "With shared weights: every candidate takes its weights from one training for all; it ranks them. "
            "The best of them, and the baselines, were then trained by the recipe, each by itself."
        )
    if any(c.state == "stopped" for c in results.candidates):
        words.append(
            "Stopped early: among the worse after a part of its epochs, so its training was not finished. "
            "It can't win, and its accuracy is that of its last epoch."
        )
    if results.evaluator == "sensitivity":
        words.append("Untrained: with the base's own weights as they are, whatever is left out.")
    return words


def render_footer(results: Results) -> str:
    """Commands, facts and words."""
    commands = [("The whole study", results.command)] if results.command else []
    commands += [(what, command) for what, command in results.commands.items() if command]
    listed = "".join(f"<div><dt>{name}</dt><dd>{esc(value)}</dd></div>" for name, value in _facts(results))
    again = "".join(_command(what, command) for what, command in commands)
    return (
        f'<footer><h2>To make this study again</h2><div class="commands">{again}</div><dl>{listed}</dl>'
        f"{''.join(f'<p>{text}</p>' for text in _words(results))}</footer>"
    )
