"""The page in Chromium: its script runs, and nothing sticks out."""

import html
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from report_examples import RICH, SHARED, spots

from cp_vision.search.outputs.report.page import render_report, write_report
from cp_vision.search.types import BlockCost, Results


def dump_dom(path: Path, profile: Path, *more: str) -> str:
    """The page's DOM after its script has run in Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={profile}", *more, "--dump-dom"]
    done = subprocess.run([browser, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def write_with_script(results: Results, path: Path, script: str) -> None:
    """Write the report with a script of the test's in it, which its policy would refuse."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_report(results))
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")


@pytest.mark.parametrize(("results", "dots"), [(RICH, 6), (SHARED, 4)], ids=["trained", "shared"])
def test_a_browser_runs_the_page(results: Results, dots: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(results, path)
    dom = dump_dom(path, tmp_path / "profile")
    assert re.search(r'<html[^>]* data-report="ready"', dom)
    assert len(re.findall(r'<tr class="row ', dom)) == len(results.candidates)
    assert len(spots(dom)) == dots
    assert dom.count(">Copy</button>") == 1 + len(results.commands)


def test_a_browser_refuses_any_other_script(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    other = (
        '<script>document.body.dataset.other = "ran"</script><img src="x" onerror="document.body.dataset.other = 1">'
    )
    path.write_text(render_report(RICH).replace("</main>", f"{other}</main>"), encoding="utf-8")
    dom = dump_dom(path, tmp_path / "profile")
    assert 'data-report="ready"' in dom
    assert "data-other" not in dom


def test_pointing_at_a_dot_shows_its_strip(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    point = "document.querySelector('#dot-3 .halo').dispatchEvent(new Event('pointerover', {bubbles: true}))"
    write_with_script(RICH, path, point)
    dom = dump_dom(path, tmp_path / "profile")
    assert re.search(r'<tr class="row complete hot" id="row-3"', dom)
    assert re.search(r'<a class="dot [^"]*hot" id="dot-3"', dom)
    readout = dom[dom.index('id="readout"') :].split("</section>")[0]
    assert "candidate 3: 95.00 %" in readout
    assert re.findall(r'<i class="(\w)"', readout) == list("kpkddddd")


def test_a_command_is_copied_or_at_least_selected(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    script = """
    const button = document.querySelectorAll(".command button")[1];
    button.click();
    setTimeout(() => { document.body.dataset.said = button.textContent; }, 500);
    """
    write_with_script(RICH, path, script)
    dom = dump_dom(path, tmp_path / "profile", "--virtual-time-budget=1000")
    said = re.search(r'data-said="(\w+)"', dom)
    assert said is not None
    assert said[1] in ("Copied", "Selected")


DEEP = tuple(BlockCost(f"layer3.{i}", 1_000_000, 9_000, droppable=True) for i in range(50))


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("results", [SHARED, replace(RICH, blocks=DEEP)], ids=["shared", "deep"])
def test_nothing_sticks_out_of_the_page(results: Results, width: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    script = "parent.document.body.dataset.width = `${innerWidth} ${document.documentElement.scrollWidth}`"
    write_with_script(results, path, script)
    # In a frame, as a window of Chromium's is never narrower than 500 pixels.
    frame = f'<iframe width="{width}" height="900" srcdoc="{html.escape(path.read_text(encoding="utf-8"))}"></iframe>'
    path.write_text(f"<!DOCTYPE html><body>{frame}</body>", encoding="utf-8")
    dom = dump_dom(path, tmp_path / "profile", "--window-size=1400,1000")
    found = re.search(r'data-width="(\d+) (\d+)"', dom)
    assert found is not None
    assert int(found[1]) == width
    assert int(found[2]) <= width
