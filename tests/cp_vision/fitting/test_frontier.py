"""Passes that begin where nothing changes any more give what passes from the start give."""

import copy

import pytest
import torch
from small_models import images, small
from torch import nn

from cp_vision import fit_blocks, replace_blocks
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.fitting.frontier import Frontier, is_chain

PLACES = [
    ("deit3_small_patch16_224", ["blocks.0.attn", "blocks.0.mlp", "blocks.2", "blocks.3.mlp"]),
    ("swin_tiny_patch4_window7_224", ["layers.0.blocks.1.mlp", "layers.1.blocks.0:layers.1.blocks.1"]),
    ("convnext_tiny", ["stages.0.blocks.0", "stages.1.blocks.1", "stages.2.blocks.0:stages.2.blocks.1"]),
    ("resnet18", ["layer1.1", "layer3.1"]),
]


@pytest.mark.parametrize(("base", "names"), PLACES)
def test_a_fit_is_the_same(base, names, monkeypatch):
    teacher, x = small(base), images(40)
    made = []
    for chained in (True, False):
        if not chained:
            monkeypatch.setattr("cp_vision.fitting.fit_blocks.is_chain", lambda *args: False)
        student = replace_blocks(copy.deepcopy(teacher), names, share=0.1)
        before = [name for name, _ in student.named_modules()]
        made.append((fit_blocks(student, teacher, x), student.state_dict()))
        assert [name for name, _ in student.named_modules()] == before
    (fit, state), (again, other) = made
    assert fit == again
    assert all(torch.equal(value, other[key]) for key, value in state.items())


class Skipping(nn.Module):
    """The last block sees what the first one gave."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        one = self.first(x)
        return self.third(self.second(one) + one)


@torch.no_grad()
def test_models_that_are_no_chain_are_told():
    blocks = ["first", "second", "third"]
    assert not is_chain(Skipping(), blocks, [torch.randn(5, 4)])
    chain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    assert is_chain(chain, ["0", "1", "2"], [torch.randn(5, 4)])
    model = small("swin_tiny_patch4_window7_224")
    assert is_chain(model, [block.name for block in list_blocks(model)], [images(3)])


@torch.no_grad()
def test_too_much_is_not_kept(monkeypatch):
    monkeypatch.setattr("cp_vision.fitting.frontier._BYTES", 100)
    chain = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    frontier = Frontier(chain, ["0", "1", "2"])
    with frontier.moving(2):
        for number in range(4):
            frontier.at(number)
            chain(torch.randn(3, 4))
    assert frontier.first == 0
