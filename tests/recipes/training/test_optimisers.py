"""What optimisers need beside their steps."""

import pytest
import torch
from digits_folder import CPU, digits, parts

from cp_vision import UserError
from cp_vision.recipes import Trainer

DEEPER = "model_kwargs={patch_size: 16, depth: 4, init_values: 1.0, pools: [], %s}"


def rates(more):
    """The scale of each weight's learning rate."""
    recipe = digits("opt=adamw", "layer_decay=0.5", DEEPER % more)
    model, loader, _ = parts(recipe, images=64)
    trainer = Trainer(model, recipe, loader, CPU)
    keys = list(model.state_dict())
    trainer.train_epoch()
    assert list(trainer.model.state_dict()) == keys
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = trainer.optimizer.param_groups
    return {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"] if id(p) in names}


def test_layer_decay_of_what_stays_is_the_bases():
    base = rates("drops: []")
    for changed in (rates("drops: [blocks.1]"), rates("replaces: ['blocks.1:blocks.2']")):
        shared = {name for name in changed if "context_pool_block" not in name}
        assert len(shared) > 20
        assert {name: changed[name] for name in shared} == {name: base[name] for name in shared}


def test_lookahead_takes_its_slow_weights_at_an_epochs_end():
    recipe = digits("opt=lookahead_adamw", "lr=0.01")
    model, loader, _ = parts(recipe, images=4 * digits().batch_size)
    trainer = Trainer(model, recipe, loader, CPU)
    trainer.train_epoch()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    # A second time it changes nothing.
    trainer.optimizer.sync_lookahead()
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_an_optimiser_that_cant_work_here_is_refused_by_name():
    with pytest.raises(UserError, match="adahessian"):
        digits("opt=adahessian")
