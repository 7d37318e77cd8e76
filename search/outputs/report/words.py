"""How the report words numbers, candidates, budgets and accuracies: plain text, which the templates escape."""

from __future__ import annotations

import math
from statistics import fmean

from ...types import Candidate, Limit, Measure, Results
from ...uncertainty import Difference, seed_spread, standard_error
from .figures import partial_score, score, shared

MINUS = "\N{MINUS SIGN}"
UNITS: dict[Measure, str] = {"macs": "MACs", "params": "parameters", "latency": "ms"}
COSTS: dict[Measure, str] = {
    "macs": "MACs for one image",
    "params": "parameters",
    "latency": "predicted time of one image in ms",
}
ACCURACIES = {
    "sensitivity": "validation accuracy, untrained",
}


def percent(value: float, digits: int = 2) -> str:
    """``98.06 %``."""
    return f"{value:.{digits}f} %"


def signed(difference: float) -> str:
    """A difference of two accuracies with its sign: ``+1.25``."""
    rounded = round(difference, 2)
    if rounded == 0:
        return "0.00"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.2f}"


def estimate(candidate: Candidate, results: Results, digits: int = 2, seeds: bool = True) -> str:
    """Validation accuracy with its standard error and number of seeds: ``97.10 ± 0.40 % (3 seeds)``.

    Raises:
        ValueError: the candidate isn't complete.
    """
    if candidate.score is None:
        raise ValueError(f"candidate {candidate.number} has no accuracy: it is {candidate.state}")
    text = _with_error(candidate.score, standard_error(candidate, results), digits)
    if not seeds or (shared(results) and not candidate.by_seed) or results.evaluator == "sensitivity":
        return text
    return f"{text} ({plural(len(candidate.by_seed) or 1, 'seed')})"


def test_estimate(candidate: Candidate, results: Results) -> str:
    """Test accuracy with its standard error over trainings; empty where it wasn't measured."""
    by_seed = results.test_accuracy.get(candidate.number)
    if not by_seed:
        return ""
    spread = seed_spread(results.test_accuracy.values())
    error = None if spread is None else spread.deviation / math.sqrt(len(by_seed))
    return _with_error(fmean(by_seed.values()), error)


def _with_error(accuracy: float, error: float | None, digits: int = 2) -> str:
    return percent(accuracy, digits) if error is None else f"{accuracy:.{digits}f} ± {percent(error, digits)}"


def compared(found: Difference) -> str:
    """A difference with its standard error, and whether there is one: ``+0.50 ± 0.30 points, not distinguishable``."""
    if found.error is None or found.interval is None:
        return f"{points(found.gain)} in one training each"
    error = f"{signed(found.gain)} ± {found.error:.2f} points"
    return error if found.distinguishable else f"{error}, not distinguishable from none"


def points(difference: float) -> str:
    """The same with its unit: ``+1.25 points``."""
    return f"{signed(difference)} points"


def short_points(difference: float) -> str:
    """The same in one digit, without the plus: ``1.2``."""
    return f"{difference:.1f}".replace("-", MINUS) if abs(difference) >= 0.05 else "0"


def unit_of(value: float) -> tuple[float, str]:
    """Factor and letter of the unit in which a count is shown: ``(1e6, "M")``."""
    for factor, letter in ((1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G")):
        # 999.5 and not 1000: three digits would round it up to a fourth.
        if value < 999.5 * factor:
            return factor, letter
    return 1e12, "T"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def count(value: float) -> str:
    """A number of MACs or parameters in three digits and a unit: ``12.3 M``."""
    if not math.isfinite(value):
        return "?"
    sign = MINUS if value < 0 else ""
    factor, letter = unit_of(abs(value))
    scaled = abs(value) / factor
    return f"{sign}{_three_digits(scaled)} {letter}" if letter else f"{sign}{scaled:.0f}"


def milliseconds(value: float) -> str:
    """A time in three digits: ``12.3 ms``."""
    return f"{_three_digits(value)} ms" if math.isfinite(value) else "? ms"


def ratio(cost: float, base: float) -> str:
    """A cost relative to the base's: ``0.69x``."""
    return f"{cost / base:.2f}x" if base > 0 and math.isfinite(cost / base) else "?x"


def plural(number: int, noun: str) -> str:
    """``1 block``, ``3 blocks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def accuracy_name(results: Results) -> str:
    """What ``Candidate.accuracy`` is in this search."""
    return ACCURACIES.get(results.evaluator, "validation accuracy")


def architecture(candidate: Candidate) -> str:
    """Pools and drops in words: ``pools: blocks.2; drops: none``."""
    return f"pools: {', '.join(candidate.pools) or 'none'}; drops: {', '.join(candidate.drops) or 'none'}"


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
    accuracy, partial = score(candidate), partial_score(candidate)
    if accuracy is None:
        if candidate.state != "stopped":
            return "failed"
        return "stopped early" if partial is None else f"stopped early at {percent(partial)}"
    text = estimate(candidate, results)
    return f"{text} with shared weights" if shared(results) and not candidate.by_seed else text


def describe(candidate: Candidate, results: Results) -> str:
    """One line about a candidate, for tooltips and screen readers."""
    roles = ["winner"] if candidate.number == results.best else []
    roles += ["base"] if candidate.is_base else []
    label = f"candidate {candidate.number}" + (f" ({', '.join(roles)})" if roles else "")
    costs = f"{count(candidate.macs)} MACs, {ratio(candidate.macs, results.base_macs)}"
    time = results.measured_latency.get(candidate.number)
    if time is not None:
        costs += f", {milliseconds(time)}"
    parts = [f"{label}: {figure(candidate, results)}, {costs}", architecture(candidate), settings_of(candidate)]
    return "; ".join(part for part in parts if part)


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


def amount(measure: Measure, value: float) -> str:
    """A cost with its unit: ``5.60 M MACs``."""
    return f"{_number(measure, value)} {UNITS[measure]}"


def limit_as_written(limit: Limit) -> str:
    """A budget as the user wrote it, and what it comes to: ``0.7x (5.60 M of 8.00 M MACs)``."""
    most, base = (_number(limit.measure, value) for value in (limit.most, limit.base))
    return f"{limit.text} ({most} of {base} {UNITS[limit.measure]})"


def limit_in_short(limit: Limit) -> str:
    """A budget in its measure's unit: ``5.60 M MACs (0.70x)``."""
    return f"{amount(limit.measure, limit.most)} ({ratio(limit.most, limit.base)})"
