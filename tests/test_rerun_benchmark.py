"""Which figures of a benchmark moved: tables of pairs, and the files that are kept."""

import pytest
from doc_blocks import ROOT

from benchmarks.rerun import SHORT, main, moved

HEAD = "| model | accuracy | ratio |\n|---|---|---|\n"
PAGES = {
    "the same": ("| a | 84.5 ± 0.4 | 1.00 |", "| a | 84.5 ± 0.4 | 1.00 |", []),
    "within the tolerance": ("| a | 84.5 | 1.00 |", "| a | 84.6 | 1.01 |", []),
    "within twice the error": ("| a | 84.5 ± 2 | 1.00 [0.7, 1.4] |", "| a | 81.0 ± 1.5 | 1.5 [1.2, 1.6] |", []),
    "beyond both": ("| a | 84.5 ± 0.4 | 1.00 |", "| a | 80.5 ± 0.4 | 1.00 |", ["a #1: accuracy 2"]),
    "a row less": ("| a | 84.5 | 1.00 |\n| b | 3 | 1.00 |", "| a | 84.5 | 1.00 |", ["b #1"]),
    "a row more": ("| a | 84.5 | 1.00 |", "| a | 84.5 | 1.00 |\n| b | 3 | 1.00 |", ["b #1"]),
    "a figure less": ("| a | 84.5 | 1.00 |", "| a | 84.5 | |", ["a #1: ratio 3"]),
    "budgets are names": ("| 0.5x | 84.5 | 1.00 |", "| 0.4x | 84.5 | 1.00 |", ["0.5x #1", "0.4x #1"]),
}


@pytest.mark.parametrize("case", PAGES)
def test_moved_figures_are_told(case):
    was, now, wanted = PAGES[case]
    assert [move.where for move in moved(HEAD + was, HEAD + now, 0.02)] == wanted


def test_csv_files_are_compared_by_row_and_column_but_for_dates_and_times():
    was = "form,budget,kl,seconds,date\nbest,0.5x,0.01,12,2026-11-30\n,,1,1,2026-11-30\n"
    now = was.replace("11-30", "12-01").replace(",12,", ",99,")
    assert list(moved(was, now, 0.02)) == []
    ((where, old, new),) = moved(was, now.replace("0.01", "0.02"), 0.02)
    assert (where, old, new) == ("best 0.5x #1: kl", "0.01", "0.02")


@pytest.mark.parametrize("name", SHORT)
def test_every_short_benchmark_is_there_with_what_it_wrote(name):
    short = SHORT[name]
    assert (ROOT / "benchmarks" / short.command[0]).is_file()
    for file in short.files:
        text = (ROOT / "benchmarks" / "results" / file).read_text()
        assert list(moved(text, text, 0)) == []
        figures = [part for part in text.replace("|", ",").split(",") if part.strip().replace(".", "", 1).isdigit()]
        changed = text.replace(figures[-1], f" {float(figures[-1]) * 2 + 1} ")
        assert list(moved(text, changed, 0.02))


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(Exception, match="'nothing' is not one of building"):
        main(["nothing"])
