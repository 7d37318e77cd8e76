"""The fenced blocks of README and docs/, and what stands in for what a test can't have."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

# Blocks that are no commands and no code, by page and first line, and why they aren't run.
SHOWN = {
    (
        "README.md",
        "y_i = sum_j a_ij x_j,    a_ij ~ w_j exp(-|p_i - p_j|² / (2 sigma_i²)),    sum_j a_ij = 1",
    ): "a formula",
    (
        "README.md",
        "budget             cost        of base  KL         accuracy      images/s at 1  images/s at 32",
    ): "what make demo prints",
    ("README.md", "@inproceedings{huang2022contextpool,"): "a reference",
    ("own-data.md", "pets/"): "what an image folder looks like; the commands of the page run on such a one",
}

# Commands that aren't run, by their first word, and why.
NOT_RUN = {"optuna-dashboard": "a server, of a package that nothing here needs"}

# Blocks and pages whose commands take seconds each, most of them on large models.
SLOW_BLOCKS = (
    'pools: ["layer[34].*", maxpool]',
    "cp-search resnet50 --data-dir ~/pets --recipe my.yaml --executor",
    "cp-train digits --output runs/digits-train",
)
SLOW_PAGES = (
    *(
        "README.md",
        "cluster.md",
        "compress.md",
        "contextpool.md",
        "dense.md",
        "half-the-macs.md",
        "imagenet.md",
        "own-data.md",
    ),
    *("search-options.md", "stand-ins.md"),
)

# Packages of others that pages install: they aren't needed here, so nothing but their names is checked.
FOREIGN = {"psycopg[binary]", "optuna-dashboard"}

# Words of commands, and what they are in a test.
WORDS = {
    "pretrained=true": "initial_checkpoint=tuned.pth",  # weights would be downloaded
    "initial_checkpoint=runs/pets-base/best/model.safetensors": "initial_checkpoint=tuned.pth",  # or trained for long
    "cp_resnet*": "cp_resnet1?",  # walking all of them takes minutes
    "17": "1",  # the tiny search has no candidate 17
    "80": "2",  # nor time for 80
}

# Larger models see smaller images, and processors without bfloat16 are spared it. The last --set of a key counts.
SMALL = ("img_size=32", "batch_size=4", "workers=0", "amp=false")

# Code, and what it is in a test: weights come from a file, through timm's own loader; a search is a short one.
CODE = {
    # What is made cheaper three times has a third of its blocks; stand-ins.md loads weights of the whole.
    r'model = timm.create_model\("vit_tiny_patch16_224", pretrained=True, img_size=80\)': (
        'model = timm.create_model("vit_tiny_patch16_224", depth=4, img_size=80)'
    ),
    r'(create_model\("(?:cp_)?(vit_(?:small|tiny)_patch16_224|resnet(?:18|50)\.a1_in1k)", pretrained=True)': (
        r'\1, pretrained_cfg_overlay={"file": "\2.pth"}'
    ),
    r"\.build\(pretrained=True": '.build(pretrained=True, pretrained_cfg_overlay={"file": "resnet50.a1_in1k.pth"}',
    r"max_run=2, tries=4": 'max_run=1, tries=1, kinds=["linear"]',
    r"trials=30": (
        'trials=2, finalists=1, seeds=1, overrides=("epochs=1", "batch_size=128", "opt=adamw"), '
        'model_kwargs={"patch_size": 16, "depth": 2, "init_values": 1.0}'
    ),
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language (commands where none is named), its title, its text."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    @property
    def first(self):
        return self.text.splitlines()[0]

    @property
    def slow(self):
        return self.page in SLOW_PAGES or self.first.startswith(SLOW_BLOCKS)

    @property
    def commands(self):
        """The words of each command."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def find_blocks(path):
    """All fenced blocks of a page."""
    blocks, begun, lines = [], None, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif begun is None:
            begun, lines = (number, line.strip().removeprefix("```")), []
        else:
            language, _, rest = begun[1].partition(" ")
            title = re.fullmatch(r'title="([^"]+)"', rest.strip())
            text = "\n".join(lines)
            blocks.append(Block(path.name, begun[0], language or "sh", title[1] if title else "", text))
            begun = None
    assert begun is None, f"{path.name}:{begun[0]}: the block has no end"
    return blocks


BLOCKS = [block for page in PAGES for block in find_blocks(page)]


def of_language(language):
    """The blocks of a language that are run."""
    return [block for block in BLOCKS if block.language == language and (block.page, block.first) not in SHOWN]


def python_of(page):
    """The Python of a page as it is run, with the lines where they stand in it."""
    lines = []
    for block in (block for block in of_language("python") if block.page == page):
        lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    code = "\n".join(lines)
    for pattern, instead in CODE.items():
        code = re.sub(pattern, instead, code)
    return code
