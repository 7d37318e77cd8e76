"""The notebook in examples/ runs from its first cell to its last, and what it shows is what it printed."""

import importlib.util
import re

import nbformat
import pytest
from doc_blocks import ROOT

spec = importlib.util.spec_from_file_location("execute", ROOT / "examples" / "execute.py")
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


def printed(notebook):
    return "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "stream"
    )


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))


def facts(text):
    """What it says of the model, and the shares of right answers, which differ a little between machines."""
    sites = re.findall(r"blocks\.\d .*multiply-adds", text)
    change = float(re.search(r"largest change: (\S+)", text)[1])
    return sites, change, [float(share) for share in re.findall(r"([\d.]+) %", text)]


def test_the_kept_notebook_was_executed():
    notebook = nbformat.read(example.NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "make it anew: python examples/execute.py"
    text = nbformat.writes(notebook)
    assert not re.search(r"/(home|root|tmp|work|usr)/", text)
    for page in re.findall(r"\]\(([^)#]+)", text):
        assert page.startswith("https://") or (example.NOTEBOOK.parent / page).is_file(), page


@pytest.mark.slow
def test_the_notebook_runs_and_finds_a_model(tmp_path):
    # A candidate beside a base of few blocks takes a tenth of the time, and every cell is run all the same.
    short = 'trials=2, overrides=("epochs=8",), model_kwargs={"patch_size": 8, "depth": 3, "init_values": 1.0}'
    kept, new = nbformat.read(example.NOTEBOOK, as_version=4), example.execute(tmp_path, {"trials=8": short})
    (sites, change, shares), (old_sites, old_change, old_shares) = facts(printed(new)), facts(printed(kept))
    assert sites == old_sites
    assert change == old_change == 0
    # Each candidate, base and winner at the end, and the winner as it was loaded.
    assert len(shares) >= 5
    assert len(old_shares) >= 11
    assert shares[-1] > 95
    assert old_shares[-1] > 95
    assert pictures(new) == pictures(kept) > 0
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
