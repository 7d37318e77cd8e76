"""One pass over the images, in which one stand-in is fitted, or all at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing

import torch
from torch import Tensor, nn

from .batches import Batches
from .block_sums import HELD_OUT_EVERY, BlockSums
from .capture import Capture
from .choice import Choice
from .fitted_block import FittedBlock
from .frontier import Frontier
from .local_steps import train_locally

__all__ = ["FitRound"]

# Local steps are taken on as many images as have so many bytes of maps, and maps that take no more wait for a choice.
_CACHE_BYTES = 2**28

# A batch: its number of images, and what each stand-in gets and should give.
_Passed = tuple[int, list[tuple[Tensor, Tensor]]]


class FitRound:
    """Fits what is fitted in one pass over the images.

    Args:
        fitted: what is fitted.
        source: the model whose maps they get.
        teacher: the model whose maps they should give.
        batches: the images.
        begin: where passes of both models begin, which moves to before what is fitted; without, at their inputs.
    """

    def __init__(
        self,
        fitted: Sequence[FittedBlock],
        source: nn.Module,
        teacher: nn.Module,
        batches: Batches,
        begin: Sequence[Frontier] = (),
    ) -> None:
        self.fitted, self.source, self.teacher, self.batches = fitted, source, teacher, batches
        self.begin = begin

    def train(self, steps: int) -> None:
        """Take local steps on the images that can be kept, and keep what comes of them where it is better on others."""
        kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.fitted]
        left = _CACHE_BYTES
        with closing(self.passes(iter(self.batches))) as passes:
            for _, maps in passes:
                for pairs, (x, y) in zip(kept, maps, strict=True):
                    pairs.append((x, y))
                    left -= x.nbytes + y.nbytes
                if left < 0:
                    break
        for one, pairs in zip(self.fitted, kept, strict=True):
            if not getattr(one.stand_in, "pools", ()) and not one.keeps:
                # The closed form of a plain map can't be improved on.
                continue
            x, y = (torch.cat(maps) for maps in zip(*pairs, strict=True))
            held_out = torch.arange(len(x)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            before = one.fit_to(x, y), copy.deepcopy(one.stand_in.state_dict())
            with torch.enable_grad():
                train_locally(one.replacement, x[~held_out], y[~held_out], steps)
            if one.fit_to(x, y) > before[0]:
                one.stand_in.load_state_dict(before[1])

    def fit(self, steps: int, curve: Sequence[int], batch_done: Callable[[], None]) -> int:
        """Choose where to start, and fit the maps on all images; tell how many these were.

        Args:
            steps: of local training before the maps are fitted.
            curve: numbers of images, rising, whose errors are to be told.
            batch_done: called after each batch.
        """
        choice = Choice(self.fitted, self.teacher)
        if steps:
            with closing(self.passes_after(choice)) as passes:
                next(passes)
            self.train(steps)
        sums = [BlockSums(curve) for _ in self.fitted]
        for images, maps in self.passes_after(choice, whole=True):
            for one, of_block, (x, y) in zip(self.fitted, sums, maps, strict=True):
                of_block.add(one.parts(x, y), images)
            batch_done()
        for one, of_block in zip(self.fitted, sums, strict=True):
            one.set(of_block)
        return sums[0].images

    def passes_after(self, choice: Choice, whole: bool = False) -> Generator[_Passed, None, None]:
        """As :meth:`passes` over all images, once a choice is made on the first of them.

        These aren't run again, unless their maps are too large to keep.
        """
        with ExitStack() as stack:
            passes = stack.enter_context(closing(self.passes(iter(self.batches), whole)))
            held: list[_Passed] = []
            room = _CACHE_BYTES
            is_open = choice.is_open
            for images, maps in passes if is_open else ():
                choice.add(images, dict(zip(self.fitted, maps, strict=True)))
                room -= sum(tensor.nbytes for tensor in {id(one): one for pair in maps for one in pair}.values())
                held = [*held, (images, maps)] if room >= 0 else []
                if not choice.is_open:
                    break
            if is_open:
                choice.make()
            if room < 0:
                stack.close()
                passes = stack.enter_context(closing(self.passes(iter(self.batches), whole)))
            yield from held
            yield from passes

    def passes(self, batches: Iterator[Tensor], whole: bool = False) -> Generator[_Passed, None, None]:
        """For each batch its number of images, and what each stand-in gets and should give.

        Args:
            batches: of the images, from the first on.
            whole: whether they are all, so that later passes may begin at what is fitted now.
        """
        paths, ends = [one.path for one in self.fitted], [one.end for one in self.fitted]
        with ExitStack() as stack:
            for frontier in self.begin:
                to = _block_of(paths, frontier.blocks) if whole else frontier.first
                stack.enter_context(frontier.moving(to))
            if self.source is self.teacher:
                given = wanted = stack.enter_context(Capture(self.teacher, paths, ends))
            else:
                given = stack.enter_context(Capture(self.source, paths))
                wanted = stack.enter_context(Capture(self.teacher, (), ends))
            for number, batch in enumerate(batches):
                for frontier in self.begin:
                    frontier.at(number)
                given.run(batch)
                if wanted is not given:
                    wanted.run(batch)
                maps = zip(paths, ends, strict=True)
                yield len(batch), [(given.inputs[path], wanted.outputs[end]) for path, end in maps]


def _block_of(paths: Sequence[str], blocks: Sequence[str]) -> int:
    """Number of the first block that one of these modules is, or is a part of."""
    return min(i for i, block in enumerate(blocks) if any(f"{path}.".startswith(f"{block}.") for path in paths))
