"""What the report says of a candidate, a site, a budget, an accuracy: plain text, unescaped."""

from __future__ import annotations

from ...types import BlockCost, Candidate, Limit, Measure, Results
from .format import count, finite, milliseconds, partial_score, percent, ratio, score

UNITS: dict[Measure, str] = {"macs": "MACs", "params": "parameters", "latency": "ms"}
ACCURACIES = {
    "supernet": "validation accuracy with shared weights",
    "sensitivity": "validation accuracy, untrained",
}
SETTINGS = {"mode": "mode of the pools", "support_range": "range of supports", "img_size": "image size"}


def accuracy_name(results: Results) -> str:
    """What ``Candidate.accuracy`` is in this search."""
    return ACCURACIES.get(results.evaluator, "validation accuracy")


def shared(results: Results) -> bool:
    """Whether candidates were scored with shared weights, and some trained by themselves afterwards."""
    return results.evaluator == "supernet"


def architecture(candidate: Candidate) -> str:
    """Pools and drops in words: ``pools: blocks.2; drops: none``."""
    pools = ", ".join(candidate.pools) or "none"
    drops = ", ".join(candidate.drops) or "none"
    return f"pools: {pools}; drops: {drops}"


def settings_of(candidate: Candidate) -> str:
    """What else was chosen for a candidate: ``gated, support 0.25, 192 px``; how it pools only where it does."""
    words = []
    for name, value in candidate.settings.items():
        if name in ("mode", "support_range") and not candidate.pools:
            continue
        known = {"mode": f"{value}", "support_range": f"support {value}", "img_size": f"{value} px"}
        words.append(known.get(name, f"{name} {value}"))
    return ", ".join(words)


def figure(candidate: Candidate, results: Results) -> str:
    """How accurate a candidate is, and by which measure."""
    accuracy, partial, trained = score(candidate), partial_score(candidate), finite(candidate.trained)
    if accuracy is None:
        if candidate.state != "stopped":
            return "failed"
        return "stopped early" if partial is None else f"stopped early at {percent(partial)}"
    if not shared(results):
        return percent(accuracy)
    own = "" if trained is None else f", {percent(trained)} after a training of its own"
    return f"{percent(accuracy)} with shared weights{own}"


def describe(candidate: Candidate, results: Results) -> str:
    """One line about a candidate, for tooltips and screen readers."""
    roles = ["winner"] if candidate.number == results.best else []
    roles += ["base"] if candidate.is_base else []
    label = f"candidate {candidate.number}" + (f" ({', '.join(roles)})" if roles else "")
    costs = f"{count(candidate.macs)} MACs, {ratio(candidate.macs, results.base_macs)}"
    time = finite(results.measured_latency.get(candidate.number))
    if time is not None:
        costs += f", {milliseconds(time)}"
    settings = settings_of(candidate)
    return f"{label}: {figure(candidate, results)}, {costs}; {architecture(candidate)}" + (
        f"; {settings}" if settings else ""
    )


def tally(results: Results) -> str:
    """How many candidates there are, and what became of them: ``12, of which 3 stopped early and 1 failed``."""
    stopped = sum(c.state == "stopped" for c in results.candidates)
    failed = sum(score(c) is None for c in results.candidates) - stopped
    parts = [f"{number} {what}" for number, what in ((stopped, "stopped early"), (failed, "failed")) if number]
    return f"{len(results.candidates)}" + (f", of which {' and '.join(parts)}" if parts else "")


def limits_of(results: Results) -> tuple[Limit, ...]:
    """Every budget of the search."""
    if results.limits or results.budget_macs is None:
        return results.limits
    return (Limit("macs", results.budget, results.budget_macs, results.base_macs),)


def _number(measure: Measure, value: float) -> str:
    return milliseconds(value).removesuffix(" ms") if measure == "latency" else count(value)


def limit_as_written(limit: Limit) -> str:
    """A budget as the user wrote it, and what it comes to: ``0.7x (5.60 M of 8.00 M MACs)``."""
    most, base = (_number(limit.measure, value) for value in (limit.most, limit.base))
    return f"{limit.text} ({most} of {base} {UNITS[limit.measure]})"


def limit_in_short(limit: Limit) -> str:
    """A budget in its measure's unit: ``5.60 M MACs (0.70x)``."""
    return f"{_number(limit.measure, limit.most)} {UNITS[limit.measure]} ({ratio(limit.most, limit.base)})"


def choices_at(name: str, blocks: tuple[BlockCost, ...]) -> str:
    """What may become of a site beside being kept: ``pool or drop``, ``pool``, ``drop``; empty for what is no site."""
    for block in blocks:
        if block.name == name:
            return " or ".join([*(["pool"] if block.poolable else []), *(["drop"] if block.droppable else [])])
    return ""
