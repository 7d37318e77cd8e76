"""From a trained model to one under a budget, from unlabelled images and without training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from cp_vision.anatomy.known_families import check_module
from cp_vision.fitting.batches import Batches
from cp_vision.shared.errors import UserError

from .accuracy import Evaluate, evaluated
from .budget import Budget, check_reachable, read_sweep
from .build import architecture_of, sized
from .choose import Chooser
from .explore import TRIES
from .images import FitImages, Images
from .kinds import DEFAULT_KINDS, Kind, kinds_of
from .library import Library, Tell, base_costs, options_of
from .places import MAX_RUN, find_spots
from .result import Compressed
from .scores import Scores, read_scores
from .stopwatch import Stopwatch
from .throughput import Throughput
from .workbench import Score, Workbench

__all__ = ["compress", "fit_library"]


def compress(
    model: nn.Module,
    images: Any,
    budget: str | Sequence[str] = "0.6x",
    *,
    score: Score | None = None,
    evaluate: Evaluate | None = None,
    kinds: Iterable[str] = DEFAULT_KINDS,
    max_run: int = MAX_RUN,
    limit: int = 512,
    tries: int = TRIES,
    to_refit: Any = None,
    steps: int = 0,
    epochs: int = 0,
    training: Any = None,
    counterparts: bool = True,
    batch_sizes: Sequence[int] = (),
    scores: str | Path | Scores | None = None,
    folder: str | Path | None = None,
    progress: Tell | None = None,
    on_budget: Callable[[Compressed], None] | None = None,
    alone: AbstractContextManager[object] | None = None,
) -> Compressed:
    """Make a trained model cheaper: replace or leave out blocks and halves of blocks, within a budget of MACs.

    Stand-ins of several kinds are fitted to every run of blocks and every half, in closed form; each is scored alone
    against the base on images that are held out; exact dynamic programming over these scores, then real scores of what
    it finds, choose for each budget; the chosen ones are fitted again, front to back. Nothing is trained, unless
    ``epochs`` says so, no labels are needed, and the same images give the same models.

    Args:
        model: trained; any timm or torchvision model whose blocks can be found. Left untouched.
        images: unlabelled and normalised, as for :func:`cp_vision.fit_blocks`.
        budget: MACs of one image, as ``"0.6x"`` of the base's or ``"2.9G"``; or ``"params=0.5x"``; or
            ``"latency=15ms"``, of one image on this device. Several of one measure, as ``"0.4x,0.6x"`` or a list.
        score: of a model in place of the divergence from the base, a number; lower is better, and what it has more than
            the base's counts. It is called for every option, so it should be quick.
        evaluate: of a model, an accuracy to tell beside: a number, or one for each image (1 where it is right), which
            gives a standard error as well. Nothing is chosen by it.
        kinds: of stand-ins, see :func:`register_option`.
        max_run: blocks of a run that one stand-in replaces, at most.
        limit: images to take at most.
        tries: candidates with real scores, for each budget and each counterpart.
        to_refit: more unlabelled images for the fit at the end, as ``images``; None takes those that were fitted to.
            Held-out images should not be among them. What was chosen is a few stand-ins, which cost little to fit to
            many images.
        steps: of local training for each stand-in with pools in that fit, see :func:`cp_vision.fit_blocks`.
        epochs: of distillation of the chosen models from the base: the squared error of the last features, watched on
            the held-out images; the best state is kept, the untrained one among them.
        training: more unlabelled images to distil over, as ``images``, but in random order; None takes those that were
            fitted to. Held-out images should not be among them.
        counterparts: whether to find the best without pools and the best of dropped blocks as well.
        batch_sizes: at which images a second are measured, on this device.
        scores: of an earlier search of the same base, with other weights and images maybe: the name of a table that
            comes with the package, a file, or the folder of a search, see :func:`cp_vision.search.read_scores`. Then
            candidates are found by these, and only their stand-ins are fitted.
        folder: keeps the library: a call that was stopped goes on from there, another budget takes seconds, and
            processes that are given the same folder share the work. It must be of the same model and images. None
            takes a temporary one.
        progress: called with done, total and what is being done.
        on_budget: called with what was found so far, after each budget.
        alone: entered once all options are fitted: such as a lock, for what several processes shouldn't do at once.

    Returns:
        A model for each budget, its architecture, its counterparts, and the table of all options.

    Raises:
        UserError: no model, scores of another one, too few images, images that are unfit, a budget that can't be met,
            options that are none.
    """
    check_module(model)
    chosen_kinds = kinds_of(kinds)
    for name, value, least in (
        ("max_run", max_run, 1),
        ("limit", limit, 1),
        ("tries", tries, 1),
        ("steps", steps, 0),
        ("epochs", epochs, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{name} {value!r} must be a whole number, {least} or more")
    for size in batch_sizes if isinstance(batch_sizes, list | tuple) else [batch_sizes]:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size is batch_sizes:
            raise UserError(f"batch_sizes {batch_sizes!r} must be a list of whole numbers, 1 or more")
    if not isinstance(counterparts, bool):
        raise UserError(f"counterparts {counterparts!r} must be True or False")
    if not isinstance(folder, str | Path | None):
        raise UserError(f"folder {folder!r} must be a path, or None for a temporary one")
    for name, function in (("score", score), ("evaluate", evaluate), ("progress", progress), ("on_budget", on_budget)):
        if function is not None and not callable(function):
            raise UserError(f"{name} {function!r} must be a function")
    budgets = read_sweep(budget)
    known = None if scores is None else read_scores(scores)
    further = [None if more is None else Batches(more, model) for more in (to_refit, training)]
    watch = Stopwatch()
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cp-vision-"))
        library = fit_library(
            model,
            images,
            budgets,
            score=score,
            kinds=chosen_kinds,
            max_run=max_run,
            known=known,
            limit=limit,
            folder=folder,
            progress=progress,
            watch=watch,
        )
        if alone is not None:
            stack.enter_context(alone)
        bench, measure, blocks = library.bench, budgets[0].measure, len(library.bench.blocks)
        if measure == "latency":
            with watch("latencies"):
                library.measure_latency()
            check_reachable(budgets, library.base_costs, library.options, blocks)
        fitted = FitImages(bench.images)
        refitted, distilled = (fitted if more is None else more for more in further)
        throughput = None
        if batch_sizes:
            with watch("speed"):
                throughput = Throughput(bench.model, bench.images.held_out[0], batch_sizes)
        chooser = Chooser(
            *(library, tries, refitted, steps, epochs, distilled, evaluate, counterparts, measure, throughput, watch)
        )
        accuracy = None
        if evaluate is not None:
            with watch("evaluation"):
                accuracy = evaluated(evaluate, bench.model)
        found = Compressed(
            base=_name(model),
            base_costs=library.base_costs,
            base_accuracy=accuracy,
            measure=bench.measure,
            images=bench.images.count,
            held_out=sum(len(batch) for batch in bench.images.held_out),
            points=(),
            options=tuple(library.options),
            blocks=tuple(bench.blocks),
            seconds=watch.seconds,
            base_rates={} if throughput is None else throughput.of_base,
        )
        base = known or _scores_of_base(library)
        for i, one in enumerate(budgets):
            points = (*found.points, chooser.point(one))
            found = replace(found, points=points, scores=known or replace(base, scored=tuple(library.scored)))
            if on_budget is not None:
                on_budget(found)
            if progress is not None:
                progress(i + 1, len(budgets), f"budget {one.text}")
    return found


def fit_library(
    model: nn.Module,
    images: Any,
    budgets: Sequence[Budget],
    *,
    score: Score | None = None,
    kinds: Sequence[Kind] | None = None,
    max_run: int = MAX_RUN,
    known: Scores | None = None,
    limit: int = 512,
    folder: str | Path,
    progress: Tell | None = None,
    watch: Stopwatch | None = None,
) -> Library:
    """Fit and score all options, or read them from the folder; with known scores nothing is fitted yet.

    Arguments are as of :func:`compress`.

    Raises:
        UserError: no model, too few images, images that are unfit, a budget of MACs or parameters that can't be met.
    """
    watch = watch or Stopwatch()
    chosen = kinds_of(DEFAULT_KINDS) if kinds is None else kinds
    with watch("images"):
        of_images = Images(images, model, limit)
        bench = Workbench(sized(model, of_images), of_images, score)
    spots = find_spots(bench.model, max_run)
    if budgets[0].measure != "latency":
        # Before anything is fitted.
        there = options_of(bench, spots, chosen, known)
        check_reachable(budgets, base_costs(bench.model), there, len(bench.blocks))
    with watch("library"):
        return Library(bench, spots, chosen, Path(folder), progress, known)


def _scores_of_base(library: Library) -> Scores:
    """What a library came to, before any candidate was scored as a whole."""
    bench, images = library.bench, library.bench.images
    return Scores(
        base=architecture_of(bench.model, (), images.size, library.base_costs["macs"]),
        input_size=images.size,
        blocks=tuple(bench.blocks),
        base_costs=library.base_costs,
        measure=bench.measure,
        images=images.count,
        held_out=sum(map(len, images.held_out)),
        options=tuple(library.options),
    )


def _name(model: Any) -> str:
    cfg = getattr(model, "pretrained_cfg", None)
    return (cfg or {}).get("architecture") or type(model).__name__
