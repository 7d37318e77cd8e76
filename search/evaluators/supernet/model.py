"""One model that acts as any of its sub-architectures, with one set of weights."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

from torch import nn

from cp_vision import Architecture
from cp_vision.anatomy.block import DroppedBlock
from cp_vision.anatomy.known_families import list_blocks
from cp_vision.shared.errors import UserError, listed

from ....recipes.models import build_model

__all__ = ["Supernet"]


class Supernet:
    """A base with pools at every candidate site, which acts as any architecture with some of them.

    Each part of the model at which there is a choice has a module for every choice, built as any user would build
    it: with its pools, without, and the place of a dropped one. They share their weights, and selecting an
    architecture puts them in their places. With everything selected the model is the whole one, keys and all.

    Args:
        model: the model of ``whole``, where it is to compute; it must not be moved afterwards.
        whole: its architecture: pools at every candidate site, no drops.

    Attributes:
        model: the model.

    Raises:
        UserError: ``whole`` leaves blocks out.
    """

    def __init__(self, model: nn.Module, whole: Architecture) -> None:
        if whole.drops:
            raise UserError(f"shared weights need every block; {listed(whole.drops)} is dropped")
        self.model, self.whole = model, whole
        blocks = {block.name: block.droppable for block in list_blocks(model)}
        names = {*blocks, *whole.pools}
        # A ResNet's down-sampling is a site within a block that is one itself.
        self._sites = {
            name: [site for site in whole.pools if site == name or site.startswith(f"{name}.")]
            for name in names
            if not any(name.startswith(f"{other}.") for other in names)
        }
        # Each part with each choice of pools within it, and where it may be left out the place without it.
        self._parts: dict[tuple[str, frozenset[str]], nn.Module] = {}
        self._dropped: dict[str, nn.Module] = {name: DroppedBlock() for name, droppable in blocks.items() if droppable}
        for name, sites in self._sites.items():
            self._parts[name, frozenset(sites)] = model.get_submodule(name)
        most = max((len(sites) for sites in self._sites.values()), default=0)
        for number in range(2**most - 1):
            self._add_parts(number)

    def _add_parts(self, number: int) -> None:
        """Add a choice for every part: of its sites those that are digits 1 of the number."""
        chosen = {
            name: frozenset(site for i, site in enumerate(sites) if number >> i & 1)
            for name, sites in self._sites.items()
        }
        pools = tuple(site for site in self.whole.pools if any(site in sites for sites in chosen.values()))
        architecture = dataclasses.replace(self.whole, pools=pools)
        like = next(self.model.parameters())
        other = build_model(architecture.model_name, architecture.create_args).to(like.device, like.dtype)
        # Assigned, not copied: the very parameters and running statistics of the whole.
        other.load_state_dict(self._shared(other), assign=True)
        for name, sites in chosen.items():
            self._parts.setdefault((name, sites), other.get_submodule(name))

    def _shared(self, other: nn.Module) -> dict[str, object]:
        state = self.model.state_dict(keep_vars=True)
        return {key: state[key] for key in other.state_dict()}

    def select(self, pools: Iterable[str], drops: Iterable[str]) -> None:
        """Act as the architecture with these pools and drops, in the mode (training or not) of the model.

        Raises:
            UserError: a pool that the whole doesn't have, a block that can't be left out, both at one site.
        """
        pools, drops = frozenset(pools), set(drops)
        if not (pools <= set(self.whole.pools) and drops <= set(self._dropped)) or pools & drops:
            wrong = (pools - set(self.whole.pools)) | (drops - set(self._dropped)) or pools & drops
            raise UserError(f"the shared weights don't hold an architecture with this choice at {listed(wrong)}")
        for name, sites in self._sites.items():
            part = self._dropped[name] if name in drops else self._parts[name, pools.intersection(sites)]
            if self.model.get_submodule(name) is not part:
                self.model.set_submodule(name, part)
                part.train(self.model.training)

    @contextlib.contextmanager
    def acting_as(self, architecture: Architecture) -> Iterator[nn.Module]:
        """The model as it acts as an architecture; afterwards it is whole again.

        Raises:
            UserError: an architecture whose weights are not among the shared ones.
        """
        self.select(architecture.pools, architecture.drops)
        try:
            yield self.model
        finally:
            self.select(self.whole.pools, ())
