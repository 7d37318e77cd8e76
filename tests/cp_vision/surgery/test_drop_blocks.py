"""Dropping a block is skipping it."""

import pytest
import torch
from small_models import QUICK, base_of, images, small

from cp_vision.anatomy.known_families import list_blocks


@pytest.mark.parametrize("name", QUICK)
@torch.inference_mode()
def test_dropping_is_skipping(name):
    base = small(base_of(name), drop_path_rate=0.1)
    drops = [block.name for block in list_blocks(base) if block.droppable][-3:-1]
    model = small(name, drop_path_rate=0.1, pools=(), drops=drops)
    gone = tuple(f"{drop}." for drop in drops)
    model.load_state_dict({key: value for key, value in base.state_dict().items() if not key.startswith(gone)})
    names = [block.name for block in list_blocks(base) if block.name not in drops]
    assert [block.name for block in list_blocks(model)] == names
    assert model.feature_info == base.feature_info
    for module in (m for n, m in base.named_modules() if n in drops):
        module.forward = lambda x, *args, **kwargs: x
    x = images()
    assert torch.equal(model(x), base(x))
    rates = {n: m.drop_prob for n, m in base.named_modules() if hasattr(m, "drop_prob")}
    kept = {n: m.drop_prob for n, m in model.named_modules() if hasattr(m, "drop_prob")}
    assert kept == {n: rate for n, rate in rates.items() if not n.startswith(gone)}
    if hasattr(model, "set_input_size"):
        model.set_input_size(img_size=(96, 64))
        assert model(images(size=(96, 64))).shape == (1, 5)
