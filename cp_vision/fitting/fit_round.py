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
from .fitted_block import FittedBlock
from .frontier import Frontier
from .kept import KeptSums, keep_best
from .local_steps import train_locally
from .supports import set_supports, starting_supports

__all__ = ["FitRound"]

# Supports and what is kept are chosen on so many images, with the better of these ridges.
_FEW = 64
_FEW_RIDGES = (1e-4, 1e-2)
# Local steps are taken on as many images as have so many bytes of maps.
_CACHE_BYTES = 2**28


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
        self._wants = [one.wants for one in fitted]

    def choose(self) -> None:
        """Choose, on a few images, the parts of blocks that stay and the supports that pools start from."""
        self._choose_kept([one for one in self.fitted if one.keeps])
        self._choose_supports([one for one in self.fitted if getattr(one.stand_in, "pools", ())])

    def _choose_kept(self, fitted: Sequence[FittedBlock]) -> None:
        if not fitted:
            return
        sums = {path: KeptSums(*self._module_and_block(path)) for path in {one.path: None for one in fitted}}
        for _, maps in self.passes(self._few(_FEW)):
            given = {one.path: one.replacement.as_maps(x) for one, (x, _) in zip(self.fitted, maps, strict=True)}
            for path, of_path in sums.items():
                of_path.add(given[path])
        for path, of_path in sums.items():
            keep_best([one.stand_in for one in fitted if one.path == path], of_path)

    def _module_and_block(self, path: str) -> tuple[nn.Module, nn.Module]:
        return self.teacher.get_submodule(path), self.teacher.get_submodule(path.rpartition(".")[0])

    def _choose_supports(self, fitted: Sequence[FittedBlock]) -> None:
        if not fitted:
            return
        tried: dict[FittedBlock, list[tuple[tuple[float, ...], BlockSums]]] = {}
        grids = {}
        for images, maps in self.passes(self._few(_FEW)):
            for one, (x, y) in zip(self.fitted, maps, strict=True):
                if one not in fitted:
                    continue
                grid = grids[one] = one.grid(x)
                if one not in tried:
                    tried[one] = [
                        (supports, BlockSums(dtype=torch.float32)) for supports in starting_supports(one.stand_in, grid)
                    ]
                for supports, sums in tried[one]:
                    set_supports(one.stand_in, supports, grid)
                    for part, count in one.slices(x, images):
                        sums.add(one.parts(x[part], y[part])[:1], count)
        for one in fitted:
            if starts := tried[one]:
                errors = [sums.solve(one.ranks()[:1], _FEW_RIDGES)[0][1] for _, sums in starts]
                one.supports = starts[errors.index(min(errors))][0]
                set_supports(one.stand_in, one.supports, grids[one])

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

    def fit(self, curve: Sequence[int], batch_done: Callable[[], None]) -> int:
        """Fit the maps on all images, and tell how many these were.

        Args:
            curve: numbers of images, rising, whose errors are to be told.
            batch_done: called after each batch.
        """
        sums = [BlockSums(curve) for _ in self.fitted]
        for images, maps in self.passes(iter(self.batches), whole=True):
            for one, of_block, (x, y) in zip(self.fitted, sums, maps, strict=True):
                for part, count in one.slices(x, images):
                    of_block.add(one.parts(x[part], y[part]), count)
            batch_done()
        for one, of_block in zip(self.fitted, sums, strict=True):
            one.set(of_block)
        return sums[0].images

    def passes(
        self, batches: Iterator[Tensor], whole: bool = False
    ) -> Generator[tuple[int, list[tuple[Tensor, Tensor]]], None, None]:
        """For each batch its number of images, and what each stand-in gets and should give.

        Args:
            batches: of the images, from the first on.
            whole: whether they are all, so that later passes may begin at what is fitted now.
        """
        paths = [one.path for one in self.fitted]
        ends, sums = ([end for end, is_sum in self._wants if is_sum == kind] for kind in (False, True))
        with ExitStack() as stack:
            for frontier in self.begin:
                to = _block_of(paths, frontier.blocks) if whole else frontier.first
                stack.enter_context(frontier.moving(to))
            if self.source is self.teacher:
                given = wanted = stack.enter_context(Capture(self.teacher, paths, ends, sums))
            else:
                given = stack.enter_context(Capture(self.source, paths))
                wanted = stack.enter_context(Capture(self.teacher, (), ends, sums))
            for number, batch in enumerate(batches):
                for frontier in self.begin:
                    frontier.at(number)
                given.run(batch)
                if wanted is not given:
                    wanted.run(batch)
                targets = [(wanted.sums if is_sum else wanted.outputs)[end] for end, is_sum in self._wants]
                yield len(batch), [(given.inputs[path], y) for path, y in zip(paths, targets, strict=True)]

    def _few(self, count: int) -> Iterator[Tensor]:
        """The first images."""
        for batch in self.batches:
            yield batch[:count]
            count -= len(batch)
            if count <= 0:
                return


def _block_of(paths: Sequence[str], blocks: Sequence[str]) -> int:
    """Number of the first block that one of these modules is, or is a part of."""
    return min(i for i, block in enumerate(blocks) if any(f"{path}.".startswith(f"{block}.") for path in paths))
