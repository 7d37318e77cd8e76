"""What a search shows where stderr is no terminal, as in a log."""

import pytest

from cp_vision.search.cli.display import Progress
from cp_vision.search.selection import Leaders
from cp_vision.search.types import Candidate

BEST = Candidate(3, ("blocks.1",), (), 2_000_000, 5, 81.25)
LEADERS = Leaders(None, BEST, None, BEST, None)
LOST = Candidate(4, (), ("blocks.2",), 1_000_000, 5, None, "failed", "out of memory")


@pytest.mark.parametrize(
    ("candidate", "line"),
    [
        (BEST, "1.0/2 trials: candidate 3, complete: validation 81.25 % at 2M MACs; best 81.25 % at 2M MACs"),
        (LOST, "1.0/2 trials: candidate 4, failed: no score at 1M MACs; best 81.25 % at 2M MACs"),
    ],
)
def test_a_log_has_a_line_a_candidate(candidate, line, capsys):
    for quiet, shown in ((False, [line]), (True, [])):
        progress = Progress(2, quiet)
        progress.on_begin(0)
        progress.on_finish(candidate, LEADERS)
        progress.close()
        assert capsys.readouterr().err.splitlines() == shown
