"""Shared weights: one model that acts as any of its sub-architectures, how they learn, and what they score."""

import dataclasses
import math
import random
from functools import partial

import commands
import pytest
import torch
from torch.nn import functional as F

from cp_vision import Architecture, UserError
from cp_vision.anatomy.default_pools import default_pools
from cp_vision.fitting.recalibrate import tracked_norms
from cp_vision.recipes import load_recipe, open_splits, single_process
from cp_vision.recipes.data.open import hold_out
from cp_vision.recipes.training.task import make_task
from cp_vision.search import Observer, SearchConfig, run
from cp_vision.search.context import SearchContext
from cp_vision.search.evaluators.base import OutOfTimeError
from cp_vision.search.evaluators.supernet.batches import KeptBatches
from cp_vision.search.evaluators.supernet.evaluator import SupernetEvaluator
from cp_vision.search.evaluators.supernet.model import Supernet
from cp_vision.search.evaluators.supernet.norms import recalibrated
from cp_vision.search.evaluators.supernet.setup import make_supernet, smallest_choice, supernet_evaluator
from cp_vision.search.evaluators.supernet.task import SandwichTask
from cp_vision.search.evaluators.train import TrainEvaluator
from cp_vision.search.outputs.agreement import kendall_tau
from cp_vision.shared.command_line import CommandError

VIT = {"img_size": 32, "patch_size": 8}
SWIN = {"img_size": 64, "window_size": 4, "depths": [2, 2, 2, 2], "embed_dim": 24}
STRIDED = ("maxpool", "layer2.0", "layer2.0.downsample", "layer3.0.downsample", "layer4.1")
STAGES = ("stages.1.downsample", "stages.2.blocks.0", "stages.2.downsample")

# Base, mode, arguments, pixels, candidate sites (None: the default ones), what is chosen of them, and dropped.
CASES = [
    ("test_vit", "gated", VIT, 32, None, ("blocks.0", "blocks.3"), ("blocks.1",)),
    ("test_vit", "replace", VIT, 32, None, ("blocks.0", "blocks.3"), ("blocks.1", "blocks.5")),
    ("test_vit", "pre_attn", VIT, 32, None, ("blocks.2",), ("blocks.1",)),
    ("test_vit2", "gated", {"patch_size": 8}, 48, None, (), ("blocks.1", "blocks.2")),
    ("swin_tiny_patch4_window7_224", "pre_attn", SWIN, 64, None, ("layers.2.blocks.0",), ("layers.1.blocks.1",)),
    pytest.param(
        *("swin_tiny_patch4_window7_224", "gated", SWIN, 64, None, ("layers.2.blocks.0",), ("layers.0.blocks.1",)),
        marks=pytest.mark.slow,
    ),
    ("test_convnext", "gated", {}, 64, None, ("stages.2.blocks.0",), ("stages.1.blocks.0",)),
    ("test_convnext", "gated", {}, 64, STAGES, ("stages.2.downsample",), ("stages.1.blocks.0",)),
    ("regnetx_002", "replace", {}, 64, None, ("s4.b3",), ("s4.b2",)),
    ("resnet26", "gated", {}, 64, None, ("layer4.0",), ("layer3.1",)),
    # A down-sampling is a site within a block that is one itself.
    ("resnet26", "replace", {}, 64, STRIDED, ("maxpool", "layer2.0.downsample"), ("layer3.1",)),
    pytest.param(
        *("resnet26", "gated", {}, 64, STRIDED, ("layer2.0", "layer3.0.downsample"), ("layer4.1",)),
        marks=pytest.mark.slow,
    ),
]


def whole_of(base, mode="gated", args=None, pools=None):
    """The architecture with all pools, and its model with pools that do something."""
    if pools is None:
        with torch.device("meta"):
            pools = default_pools(Architecture(base, model_args=args or {}).build())
    whole = Architecture(base, tuple(pools), (), {"mode": mode}, args or {})
    model = whole.build()
    for name, parameter in model.named_parameters():
        if ".context_pool." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return whole, model


def own_model(architecture, model):
    """The model of an architecture by itself, with copies of another's weights."""
    alone = architecture.build()
    state = model.state_dict()
    alone.load_state_dict({key: state[key] for key in alone.state_dict()})
    return alone


@pytest.mark.parametrize(("base", "mode", "args", "size", "sites", "pools", "drops"), CASES)
def test_it_acts_as_the_model_that_is_built(base, mode, args, size, sites, pools, drops):
    whole, model = whole_of(base, mode, args, sites)
    keys, parameters = list(model.state_dict()), [id(p) for p in model.parameters()]
    net = Supernet(model.eval(), whole)
    one = dataclasses.replace(whole, pools=pools, drops=drops)
    alone, images = own_model(one, model), torch.randn(2, 3, size, size)
    with torch.no_grad():
        before = model(images)
    for training in (False, True):
        model.train(training)
        alone.train(training)
        with net.acting_as(one):
            torch.manual_seed(1)
            said = model(images)
            assert set(model.state_dict()) == set(alone.state_dict())
            assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in alone.parameters())
        torch.manual_seed(1)
        assert torch.equal(said, alone(images))
        assert not torch.equal(said, before)
    # What a forward pass in training changes are the statistics of the whole.
    for key, value in alone.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    said.sum().backward()
    alone(images).sum().backward()
    dropped = tuple(f"{name}." for name in drops)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in dict(alone.named_parameters())), name
        assert not (name.startswith(dropped) and parameter.grad is not None)
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == parameters


@pytest.mark.parametrize(
    ("pools", "drops", "named"),
    [(("blocks.9",), (), "blocks.9"), ((), ("head",), "head"), (("blocks.1",), ("blocks.1",), "blocks.1")],
)
def test_what_it_does_not_hold_is_named_and_changes_nothing(pools, drops, named):
    whole, model = whole_of("test_vit", args=VIT)
    net, images = Supernet(model.eval(), whole), torch.randn(1, 3, 32, 32)
    before = model(images)
    with (
        pytest.raises(UserError, match=f"don't hold an architecture with this choice at {named}"),
        net.acting_as(dataclasses.replace(whole, pools=pools, drops=drops)),
    ):
        pass
    assert torch.equal(model(images), before)
    with pytest.raises(UserError, match=r"need every block; blocks\.1 is dropped"):
        Supernet(model, dataclasses.replace(whole, drops=("blocks.1",)))


def test_recalibrated_norms_have_the_mean_over_the_batches_and_then_their_own_again():
    whole, model = whole_of("test_resnet")
    net, batches = Supernet(model, whole), [(torch.randn(8, 3, 32, 32), None) for _ in range(3)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one = dataclasses.replace(whole, pools=whole.pools[:1])
    with net.acting_as(one), recalibrated(model, batches, single_process()):
        first = next(iter(tracked_norms(model).values()))
        seen = [model.conv1[0](images) for images, _ in batches]
        torch.testing.assert_close(first.running_mean, torch.stack([s.mean((0, 2, 3)) for s in seen]).mean(0))
        torch.testing.assert_close(first.running_var, torch.stack([s.var((0, 2, 3)) for s in seen]).mean(0))
        assert not any(module.training for module in model.modules())
        assert first.num_batches_tracked == 3
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(norm.momentum == 0.1 for norm in tracked_norms(model).values())


def sandwich(recipe, base="test_vit", args=VIT, **options):
    whole, model = whole_of(base, args=args)
    model, task = make_task(model, recipe, single_process())
    smallest = dataclasses.replace(whole, pools=(), drops=("blocks.1", "blocks.2", "blocks.3", "blocks.4"))
    drawn = dataclasses.replace(whole, pools=("blocks.3",), drops=("blocks.0",))
    net = Supernet(model, whole)
    return net, SandwichTask(task, net, smallest, lambda rng: drawn, **options), smallest, drawn


@pytest.mark.parametrize("binary", [False, True])
def test_the_loss_is_that_of_whole_smallest_and_between(binary):
    recipe = load_recipe("digits", [f"bce_loss={binary}"])
    net, task, smallest, drawn = sandwich(recipe, task_share=0.25, binary=binary)
    images, targets = torch.randn(6, 3, 32, 32), torch.arange(6)
    whole = net.model(images)
    losses = [task.task.criterion(whole, targets)]
    for architecture in (smallest, drawn, drawn):
        logits = own_model(architecture, net.model)(images)
        if binary:
            distance = F.binary_cross_entropy_with_logits(logits, whole.sigmoid())
        else:
            distance = -(whole.softmax(1) * logits.log_softmax(1)).sum(1).mean()
        losses.append(0.25 * task.task.criterion(logits, targets) + 0.75 * distance)
    torch.testing.assert_close(task(images, targets)["loss"], sum(losses) / 4)


def test_what_the_whole_says_gets_no_gradient():
    net, task, _, _ = sandwich(load_recipe("digits"), task_share=0.0)
    images, targets = torch.randn(6, 3, 32, 32), torch.arange(6)
    task(images, targets)["loss"].backward()
    # The whole alone has this block's pool, so its own loss alone changes it.
    own = net.model.get_parameter("blocks.4.context_pool.gate").grad.clone()
    assert own.abs().max() > 0
    net.model.zero_grad()
    (task.task(images, targets)["loss"] / 4).backward()
    torch.testing.assert_close(net.model.get_parameter("blocks.4.context_pool.gate").grad, own)


def test_the_smaller_ones_come_closer_to_the_whole():
    net, task, smallest, _ = sandwich(load_recipe("digits"), task_share=0.0)
    images, targets = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    optimizer = torch.optim.AdamW(net.model.parameters(), 1e-3)

    def far():
        says = net.model(images).detach()
        with net.acting_as(smallest):
            # Less what is left where both say the same.
            return float((task.distance(net.model(images), says) - task.distance(says, says)).detach())

    before = far()
    for _ in range(20):
        optimizer.zero_grad()
        task(images, targets)["loss"].backward()
        optimizer.step()
    assert far() < 0.5 * before


def evaluator(output, base="test_vit", args=VIT, overrides=(), images=128):
    """Shared weights on some of the digits."""
    recipe = load_recipe(
        "digits", ["epochs=2", "batch_size=64", "opt=adamw", "lr=0.002", "workers=0", "seed=3", *overrides]
    )
    train_set, held_out = hold_out(open_splits(recipe)[0], 0.2)
    args = {**args, "num_classes": 10}
    whole, _ = whole_of(base, args=args)
    trainer = TrainEvaluator(
        recipe, train_set.part(range(images)), held_out.part(range(64)), 10, output, single_process()
    )
    blocks = [f"blocks.{i}" for i in range(6)] if base == "test_vit" else []
    smallest = dataclasses.replace(whole, pools=(), drops=tuple(blocks[1:]))

    def draw(rng):
        drops = tuple(name for name in blocks[1:] if rng.random() < 0.5)
        pools = tuple(name for name in whole.pools if name not in drops and rng.random() < 0.5)
        return dataclasses.replace(whole, pools=pools, drops=drops)

    return SupernetEvaluator(trainer, whole, smallest, draw, recipe)


def score(shared, architecture):
    return shared(architecture, None, lambda epoch, epochs, loss, score: None)


@pytest.mark.parametrize(("base", "args"), [("test_vit", VIT), ("test_resnet", {})])
def test_scores_dont_depend_on_what_was_scored_before(base, args, tmp_path):
    shared = evaluator(tmp_path, base, args, ["epochs=1"])
    rng = random.Random(0)
    some = [shared.whole, shared.smallest, *(shared.draw(rng) for _ in range(2))]
    forth = [score(shared, one) for one in some]
    assert [score(shared, one) for one in reversed(some)][::-1] == forth
    # Read from the folder, they are the same.
    again = evaluator(tmp_path, base, args, ["epochs=1"])
    again.prepare(lambda done, epochs: pytest.fail("they are trained already"))
    assert [score(again, one) for one in some] == forth
    for one, found in zip(some, forth, strict=True):
        alone = own_model(one, shared.prepare().model)
        assert found.params == sum(parameter.numel() for parameter in alone.parameters())
        if base == "test_vit":
            assert found.accuracy == shared.trainer.score(alone, shared.trainer.held_out)


def test_batches_are_read_once_where_they_fit():
    reads = []

    def read(name, count):
        reads.append(name)
        yield from ((torch.full((4,), float(i)), torch.zeros(4)) for i in range(count))

    batches = KeptBatches(most_bytes=4 * 2 * 16)
    for name, count in (("few", 3), ("many", 5), ("one more", 1)):
        for _ in range(3):
            assert [float(images[0]) for images, _ in batches.get(name, partial(read, name, count))] == [*range(count)]
    assert reads == ["few", "many", "many", "many", "one more"]


class StopError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [[], ["recovery_interval=1", "model_ema=true", "model_ema_decay=0.9"]])
def test_stopped_anywhere_the_training_ends_with_the_same_weights(overrides, tmp_path):
    expected = evaluator(tmp_path / "straight", overrides=overrides).prepare().model.state_dict()
    stops, told = [0.0, 0.25, 0.75, 1.0, 1.5, 2.0, math.inf], []

    def on_progress(done, epochs):
        told.append(done)
        if done >= stops[0]:
            raise StopError

    while math.isfinite(stops[0]):
        with pytest.raises(StopError):
            evaluator(tmp_path / "stopped", overrides=overrides).prepare(on_progress)
        stops.pop(0)
    found = evaluator(tmp_path / "stopped", overrides=overrides).prepare(on_progress).model.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert told[-1] == 2.0
    # Its states are whole ones: nothing unfinished is left.
    assert {path.name for path in (tmp_path / "stopped" / "supernet").iterdir()} <= {
        "checkpoint.pt",
        "checkpoint.previous.pt",
        ".lock",
    }


def test_weights_of_another_search_are_not_taken(tmp_path):
    evaluator(tmp_path, overrides=["epochs=1"], images=64).prepare()
    with pytest.raises(UserError, match="holds shared weights of another search; choose another --output"):
        evaluator(tmp_path, overrides=["epochs=1", "lr=0.001"], images=64).prepare()


def test_what_is_trained_comes_from_the_space(tmp_path):
    space = {"pools": ["blocks.[0-3]"], "max_drops": 4}
    config = SearchConfig(base="test_vit2", space=space, model_kwargs={"patch_size": 8}, output=tmp_path, budget="0.8x")
    context = SearchContext(config)
    shared = supernet_evaluator(context)
    assert shared.whole.pools == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    assert not shared.whole.drops
    assert len(shared.smallest.drops) == 4
    assert not shared.smallest.pools
    rng = random.Random(0)
    for one in [shared.draw(rng) for _ in range(50)]:
        assert context.space.excess(context.space.choice(one.pools, one.drops)) <= 0
    unbounded = SearchContext(config.with_values(space=None)).space
    assert list(smallest_choice(unbounded).values()).count("drop") == 7


def test_kendalls_tau():
    assert kendall_tau([(1, 1), (2, 2), (3, 3)]) == 1
    assert kendall_tau([(1, 3), (2, 2), (3, 1)]) == -1
    assert kendall_tau([(1, 1), (2, 3), (3, 2)]) == pytest.approx(1 / 3)
    # (concordant - discordant) / sqrt(pairs that don't tie in one, times those in the other)
    assert kendall_tau([(1, 1), (2, 2), (2, 3)]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert kendall_tau([]) is None
    assert kendall_tau([(1, 1)]) is None
    assert kendall_tau([(1, 1), (1, 2)]) is None


class Heard(Observer):
    def __init__(self):
        self.phases, self.parts = [], []

    def on_phase(self, name, parts):
        self.phases.append((name, parts))

    def on_part(self, name, done):
        self.parts.append(done)


SHARED = {
    "base": "test_vit2",
    "evaluator": "supernet",
    "model_kwargs": {"patch_size": 16, "depth": 4, "init_values": 1.0},
    "overrides": ("epochs=1", "batch_size=128", "opt=adamw", "lr=0.004"),
    "supernet_epochs": 1,
    "trials": 6,
    "finalists": 2,
    "seeds": 1,
}


@pytest.mark.slow
def test_a_finalist_that_fails_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    config = SearchConfig(**SHARED, output=tmp_path)
    train, begun = TrainEvaluator.__call__, []

    def fail_once(self, architecture, img_size, on_epoch, seed):
        begun.append(architecture)
        # Meanwhile the report can be made again.
        assert commands.run(["cp-search", "report", str(tmp_path)]).returncode == 0
        if architecture.drops and architecture == next(a for a in begun if a.drops):
            raise OutOfTimeError("too slow")
        return train(self, architecture, img_size, on_epoch, seed)

    monkeypatch.setattr(TrainEvaluator, "__call__", fail_once)
    results = run(config)
    (failed,) = [c for c in results.candidates if c.reason]
    assert (failed.reason, failed.mean) == ("with seed 0: too slow", None)
    assert results.best not in (None, failed.number)
    count = len(begun)
    assert run(config) == results
    assert len(begun) == count


@pytest.mark.slow
def test_a_base_that_takes_too_long_ends_the_finalists_in_one_line(tmp_path):
    config = SearchConfig(**{**SHARED, "trials": 2}, trial_seconds=0.01, output=tmp_path)
    with pytest.raises(CommandError, match="the base itself can't be trained: it took longer than"):
        run(config)


@pytest.mark.slow
def test_a_search_with_shared_weights(tmp_path):
    config = SearchConfig(**{**SHARED, "supernet_epochs": 2, "seeds": 2}, output=tmp_path)
    heard = Heard()
    results = run(config, heard)
    assert heard.phases[0] == ("shared weights", 2)
    trained = [c for c in results.candidates if c.by_seed]
    assert len(trained) >= 3
    assert all(c.by_seed.keys() == {0, 1} for c in trained)
    assert results.agreement == kendall_tau([(c.accuracy, c.mean) for c in trained])
    assert results.best in {c.number for c in trained}
    # Ready: nothing is trained again.
    again = Heard()
    make_supernet(SearchContext(config), again)
    assert not again.phases
