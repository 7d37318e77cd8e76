"""The tables of ``compress.py`` and ``compress_speed.py``, from their CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.replacement_report import Row, read_csv, table

__all__ = ["FORMS", "more_in_words", "report", "speed_tables", "tables"]

FORMS = {
    "Torch-Pruning": "channels, Torch-Pruning",
    "Torch-Pruning, refitted": "these with our least squares",
    "drop only": "blocks dropped",
    "no pools": "without pools",
    "no parts": "maps and pools, no part kept",
    "best": "with pools as well",
}
_ABOUT = """\
# Trained models under budgets, nothing trained

`python benchmarks/compress.py --data-dir DIR --base BASE`; CPU, float32; beneath each table its runs with their costs.

For each budget the best that was found of dropped blocks alone, of all kinds without pools (linear maps of tokens, some
hidden units, heads or channels beside these), and of all kinds: MACs as a share of the base's, KL divergence from the
base on the held-out quarter of the unlabelled images (by which it was chosen), accuracy on test images with its
standard error. A \\* where the stand-ins are those that were fitted again front to back. What pools add is the
difference of the accuracies with pools and without, in points, with the error of pairs of images.

Images a second are `python benchmarks/compress_speed.py --data-dir DIR --base BASE`'s: of these models, one image at a
time and in batches of 32, as multiples of the base's, medians of paired runs.
"""


def report(folder: Path, bases: Sequence[str]) -> None:
    """Write ``compress.md`` of all bases that were measured."""
    lines = [_ABOUT]
    for base in bases:
        if rows := read_csv(folder / f"compress_{base}.csv"):
            cost, _, kinds = (folder / f"compress_{base}.txt").read_text().partition("\n\n")
            speeds = speed_tables(read_csv(folder / f"compress_speed_{base}.csv"))
            lines += [*tables(rows), f"{cost}\n", *speeds, "```", kinds.rstrip(), "```\n"]
    (folder / "compress.md").write_text("\n".join(lines))


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """The table of a base: a row for each budget, a column for each form."""
    first = rows[0]
    yield f"## {first['base']}: {_accuracy(first)} % of {first['test']} test images\n"
    more = {row["budget"]: int(row.get("further") or 0) for row in rows if row["form"] == "best"}
    told = [f"at {budget}{more_in_words(count)}" for budget, count in more.items() if count]
    yield f"{first['images']} unlabelled images{''.join(f'; {one}' for one in told)}.\n"
    forms = {form: title for form, title in FORMS.items() if any(row["form"] == form for row in rows)}
    cells = []
    for budget in dict.fromkeys(row["budget"] for row in rows[1:]):
        of_form = {row["form"]: row for row in rows if row["budget"] == budget}
        pools = of_form["best"].get("pools", "") if "best" in of_form else ""
        cells.append([budget, *(_cell(of_form.get(form)) for form in forms), pools])
    yield from table(["budget", *forms.values(), "pools add"], cells)


def speed_tables(rows: Sequence[Row]) -> Iterator[str]:
    """Images a second of a base's models beside its own; nothing where they were not measured."""
    if not rows:
        return
    base = rows[0]
    yield (
        f"Images a second; the base's: {float(base['at_1']):.3g} one at a time, {float(base['at_32']):.3g} in batches "
        f"({base['threads']} threads, {base['date']}).\n"
    )
    forms = {form: title for form, title in FORMS.items() if any(row["form"] == form for row in rows)}
    cells = []
    for budget in dict.fromkeys(row["budget"] for row in rows[1:]):
        of_form = {row["form"]: row for row in rows if row["budget"] == budget}
        cells.append([budget, *(_speeds(of_form.get(form), base) for form in forms)])
    yield from table(["budget", *forms.values()], cells)


def _speeds(row: Row | None, base: Row) -> str:
    if row is None:
        return ""
    one, many = (float(row[key]) / float(base[key]) for key in ("at_1", "at_32"))
    return f"{float(row['macs']):.2f}x: {one:.2f}, {many:.2f}"


def more_in_words(count: int) -> str:
    """Of images for the fit at the end; nothing where there are none."""
    return f", {count:,} more for the fit at the end" if count else ""


def _cell(row: Row | None) -> str:
    if row is None:
        # Not reached, or not measured.
        return ""
    star = r"\*" if row["refitted"] == "True" else ""
    return f"{float(row['macs']):.2f}x, KL {float(row['score']):.2g}{star}, {_accuracy(row)}"


def _accuracy(row: Row) -> str:
    return f"{float(row['accuracy']):.1f} ± {float(row['error']):.1f}"
