"""Studies for the tests of the report, and what is read from the page."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from cp_vision.search.types import BlockCost, Candidate, Limit, Results

VOID = {"meta", "br", "img", "link", "input", "hr", "wbr"}
BLOCKS = tuple(BlockCost(f"blocks.{i}", 1_000_000, 9_000, droppable=i > 0) for i in range(8))
BASE = Candidate(0, (), (), 8_000_000, 260_000, 97.5, within_budget=False)
POOLED = Candidate(1, ("blocks.2",), ("blocks.5", "blocks.6", "blocks.7"), 5_009_000, 170_000, 98.125)
PLAIN = Candidate(2, (), ("blocks.4", "blocks.5", "blocks.6"), 5_000_000, 169_000, 97.0)
CHEAP = Candidate(3, ("blocks.1",), tuple(f"blocks.{i}" for i in range(3, 8)), 3_009_000, 99_000, 95.0)
WORSE = Candidate(4, ("blocks.3",), ("blocks.4", "blocks.5", "blocks.6"), 5_009_000, 170_000, 94.0)
FAILED = Candidate(5, (), ("blocks.1",), 7_000_000, 220_000, None, "failed", "the loss became NaN")
STOPPED = Candidate(6, ("blocks.1",), ("blocks.2", "blocks.3"), 5_500_000, 180_000, 96.0, "stopped")
NAN, INF = float("nan"), float("inf")


def study(*candidates: Candidate, **changes: Any) -> Results:
    results = Results(
        base="test_vit2",
        dataset="torch/cifar10",
        recipe="short.yaml",
        command="cp-search test_vit2 --budget 0.7x --seed 3",
        seed=3,
        budget="0.7x",
        budget_macs=5_600_000,
        base_macs=8_000_000,
        blocks=BLOCKS,
        candidates=candidates,
    )
    return replace(results, **changes)


FULL = study(
    BASE,
    POOLED,
    PLAIN,
    CHEAP,
    WORSE,
    FAILED,
    best=1,
    best_drops_only=2,
    pair=(1, 2),
    test_accuracy={0: {3: 97.2}, 1: {3: 97.9}, 2: {3: 96.4}},
)
# Everything that a search can have found.
RICH = replace(
    FULL,
    candidates=(*FULL.candidates, STOPPED),
    limits=(
        Limit("macs", "0.7x", 5_600_000, 8_000_000),
        Limit("params", "0.8x", 208_000, 260_000),
        Limit("latency", "12ms", 12.0, 15.0),
    ),
    importance={"blocks.2": 0.5, "mode": 0.3, "blocks.0": 0.2},
    sensitivity={f"blocks.{i}": loss for i, loss in enumerate((60.0, 2.5, 1.5, -0.25, 0.5, 1.0, 2.0, 0.75)) if i > 0},
    measured_latency={0: 4.0, 1: 3.2, 2: 2.5},
    commands={"Go on": "cp-search resume runs/x --trials 80", "Score the winner": "cp-train recipe --eval best"},
)
SHARED = replace(
    RICH,
    candidates=(
        replace(BASE, accuracy=92.0, by_seed={3: 97.5}),
        replace(POOLED, accuracy=93.5, by_seed={3: 98.125}),
        replace(PLAIN, accuracy=93.0, by_seed={3: 97.0}),
        replace(CHEAP, accuracy=91.0),
    ),
    evaluator="supernet",
    agreement=1 / 3,
)
# Finalists that were trained with three seeds.
SEEDED = replace(
    FULL,
    candidates=(
        replace(BASE, by_seed={3: 97.5, 4: 97.9, 5: 97.7}),
        replace(POOLED, by_seed={3: 98.125, 4: 97.525, 5: 97.825}),
        replace(PLAIN, by_seed={3: 97.0, 4: 97.2, 5: 97.4}),
        CHEAP,
    ),
    test_accuracy={n: {3: a, 4: a + 0.3, 5: a + 0.6} for n, a in ((0, 97.2), (1, 97.9), (2, 96.4))},
    held_out=800,
)


class Page(HTMLParser):
    """Tags with their attributes, and the text; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def having(self, tag: str, cls: str) -> list[dict[str, str]]:
        return [a for name, a in self.tags if name == tag and cls in a.get("class", "").split()]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def parse_svg(text: str) -> ElementTree.Element:
    """The root of a picture that is well-formed XML."""
    return ElementTree.fromstring(text)  # noqa: S314


def spots(text: str, name: str = "dot") -> dict[int, tuple[str, str]]:
    """Where each mark of a chart lies: those of accuracy against MACs are dots, those of latency are times."""
    tags = Page(text).tags
    found = {}
    for (tag, attrs), (inside, place) in zip(tags, tags[2:], strict=False):  # its title comes between
        if tag == "a" and attrs.get("id", "").startswith(f"{name}-"):
            assert inside == "svg"
            found[int(attrs["data-n"])] = (place["x"], place["y"])
    return found


def rows_of(text: str) -> dict[int, str]:
    """The rows of the strips by number, in their order."""
    rows = text[text.index('<tr class="row') : text.index('id="costs"')].split('<tr class="row ')[1:]
    found = [re.search(r'id="row-(\d+)"', row) for row in rows]
    return {int(match[1]): row for match, row in zip(found, rows, strict=True) if match is not None}


def losses(text: str) -> list[tuple[str, float]]:
    """The bars of the picture of what is lost: words and heights in percent."""
    found = re.findall(r'<rect class="loss[^>]* height="([\d.]+)%"><title>([^<]+)', text)
    return [(words, float(height)) for height, words in found]
