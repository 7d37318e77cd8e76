"""Tables of cases of which ``make test`` runs some and ``make test-slow`` the others."""

import pytest


def slow_unless(fast, cases):
    """Cases as parameters, slow but for the fast ones; a case is a value, or a row that its first value names."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    missing = {*fast} - {row[0] for row in rows}
    if missing:
        raise ValueError(f"{sorted(missing)} are no cases")
    return [pytest.param(*row, marks=[] if row[0] in fast else [pytest.mark.slow]) for row in rows]
