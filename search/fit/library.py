"""Every option of a base: fitted, scored alone, and kept in a folder."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cp_vision import Snapshot, count_macs
from cp_vision.anatomy.token_grid import TokenGrid
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.fit_places import bytes_of_sums, fit_places
from cp_vision.fitting.fitted_block import FittedBlock
from cp_vision.surgery.replace_blocks import make_replacement

from ..types import Measure
from .images import FitImages
from .kinds import DROP, Kind
from .latency import saved_latencies
from .library_files import LibraryFiles, count_alone, fingerprint_of
from .offers import Offer, offered, offers
from .option import Candidate, Option
from .places import Spot
from .scores import Scores, with_scores
from .workbench import Change, Workbench

__all__ = ["Library", "Tell", "base_costs", "fitted_block", "options_of"]

# Told what is done, and of how much.
Tell = Callable[[int, int, str], None]

# Sums of several blocks are gathered in one pass of the base while they take no more, and so that others find work.
_BYTES, _TOGETHER = 2**29, 4
# Seconds between looks at what others do.
_POLL = 0.5


class Library:
    """All options of a base, with their stand-ins in a folder.

    Blocks that the folder has already are taken from there; the result is the same. Several processes with one folder
    share the work: each fits what no other one does, and all end with everything. With scores of another's
    nothing is fitted or scored beforehand: a stand-in is fitted when it is first part of a candidate.

    Args:
        bench: the base and its images.
        spots: the places.
        kinds: what may take them, beside nothing.
        folder: for the files.
        tell: called after each block.
        known: scores to take.

    Attributes:
        options: all, by first block.
        base_costs: of the base: MACs of one image and parameters, see :meth:`measure_latency`.

    Raises:
        UserError: a folder of something else, scores of another base.
    """

    def __init__(
        self,
        bench: Workbench,
        spots: Sequence[Spot],
        kinds: Sequence[Kind],
        folder: Path,
        tell: Tell | None = None,
        known: Scores | None = None,
    ) -> None:
        self.bench, self._kinds, self._tell, self._known = bench, kinds, tell, known
        self._spots = {spot.place.name: spot for spot in spots}
        self.base_costs = base_costs(bench.model)
        self.files = LibraryFiles(folder, self._about())
        if known is not None:
            self.options = options_of(bench, spots, kinds, known)
            return
        self.options = [option for options in self._gather(spots, tell) for option in options]

    def measure_latency(self) -> None:
        """Add what each option saves in time, measured on this device the first time that it is asked for."""
        base, saved = self.files.latencies(
            lambda: saved_latencies(
                self.bench.model, self.bench.images.held_out[0][:1], list(self._spots.values()), self._kinds
            )
        )
        self.base_costs["latency"] = base
        self.options = [
            dataclasses.replace(option, saved={**option.saved, "latency": saved[option.key]}) for option in self.options
        ]

    def changes(self, candidate: Candidate, model: nn.Module | None = None) -> list[Change]:
        """What a candidate puts where, with the library's stand-ins.

        Args:
            candidate: the candidate.
            model: what it is for, which may get hooks that tell a grid; None takes the workbench's.
        """
        model = self.bench.model if model is None else model
        if self._known is not None:
            self._fit_missing(candidate)
        tokens = functools.cache(lambda: TokenGrid(model))
        changes: list[Change] = []
        for option in candidate:
            spot, made = self._spots[option.place], None
            if option.kind != DROP:
                made = make_replacement(model, spot.place, option.options, tokens)
                made.load_state_dict(self.files.weights(option))
                made.eval()
            changes.append((spot, made))
        return changes

    def score(self, candidate: Candidate) -> float:
        """Score of a candidate with the library's stand-ins; lower is better. The folder keeps it."""

        def measure() -> float:
            # Hooks that tell a grid go with it.
            with Snapshot(self.bench.model):
                return self.bench.score(self.changes(candidate))

        return self.files.score(candidate, measure)

    def _gather(self, spots: Sequence[Spot], tell: Tell | None) -> list[list[Option]]:
        """Options by first block: read, fitted here, or waited for where another process fits them."""
        firsts = sorted({spot.first for spot in spots})
        found = {first: options for first in firsts if (options := self.files.read(first)) is not None}
        at = {first: [spot for spot in spots if spot.first == first] for first in firsts}
        need = functools.cache(lambda first: self._bytes_of_sums(at[first]))

        def add(first: int, options: list[Option]) -> None:
            found[first] = options
            if tell is not None:
                tell(len(found), len(firsts), f"options at {self.bench.blocks[first]}")

        while missing := [first for first in firsts if first not in found]:
            with self.files.claims() as claim:
                group: list[list[Spot]] = []
                room = _BYTES
                for first in missing:
                    if len(group) == _TOGETHER or (group and need(first) > room) or not claim(first):
                        continue
                    # Another process may have come to an end with it just now.
                    if (options := self.files.read(first)) is None:
                        group.append(at[first])
                        room -= need(first)
                for first, options in self._fit(group) if group else ():
                    add(first, options)
            if not group:
                time.sleep(_POLL)
            for first in missing:
                if first not in found and (options := self.files.read(first)) is not None:
                    add(first, options)
        return [found[first] for first in firsts]

    def _bytes_of_sums(self, spots: Sequence[Spot]) -> int:
        """What the sums of places that begin at one block take."""
        with Snapshot(self.bench.model):
            paths: dict[str, list[FittedBlock]] = {}
            for offer in offers(self.bench.model, spots, self._kinds):
                if offer.stand_in is not None:
                    fitted = fitted_block(offer)
                    paths.setdefault(fitted.path, []).append(fitted)
            return sum(bytes_of_sums(fitted) for fitted in paths.values())

    @property
    def scored(self) -> list[tuple[Candidate, float]]:
        """Candidates that were scored as a whole, and their scores; those of earlier calls, too."""
        return list(self._of_keys(self.files.scores()))

    @functools.cached_property
    def prior(self) -> dict[Candidate, float]:
        """Candidates that the scores of another search know as a whole."""
        known = () if self._known is None else self._known.scored
        return dict(self._of_keys([([option.key for option in candidate], score) for candidate, score in known]))

    def _of_keys(self, scored: Sequence[tuple[Sequence[str], float]]) -> Iterator[tuple[Candidate, float]]:
        """Candidates of this library's options; there may be others of other kinds."""
        by_key = {option.key: option for option in self.options}
        for keys, score in scored:
            if all(key in by_key for key in keys):
                yield tuple(by_key[key] for key in keys), score

    def _fit_missing(self, candidate: Candidate) -> None:
        """Fit the stand-ins of a candidate that aren't fitted yet, in one pass of the base."""
        missing = [option for option in candidate if option.kind != DROP and not self.files.has(option)]
        if not missing:
            return
        model, keys = self.bench.model, {option.key for option in missing}
        with Snapshot(model):
            spots = [self._spots[option.place] for option in missing]
            made = [offer for offer in offers(model, spots, self._kinds) if offer.option.key in keys]
            self._fit_offers(made)
            for _, option, stand_in in made:
                if stand_in is not None:
                    self.files.write_one(option, stand_in)
        if self._tell is not None:
            self._tell(count_alone(self.files.folder), 0, "stand-ins fitted")

    def _fit_offers(self, made: Sequence[Offer]) -> dict[str, FittedBlock]:
        """Fit stand-ins, all in one pass; by the option's key."""
        fitted = {offer.option.key: fitted_block(offer) for offer in made if offer.stand_in is not None}
        if fitted:
            images: Any = FitImages(self.bench.images)
            fit_places(self.bench.model, list(fitted.values()), Batches(images, self.bench.model))
        return fitted

    def _fit(self, group: Sequence[Sequence[Spot]]) -> Iterator[tuple[int, list[Option]]]:
        model = self.bench.model
        with Snapshot(model):
            made = list(offers(model, [spot for spots in group for spot in spots], self._kinds))
            fitted = self._fit_offers(made)
            for spots in group:
                here = [offer for offer in made if offer.spot in spots]
                options = [self._scored(offer, fitted.get(offer.option.key)) for offer in here]
                stand_ins = {offer.option.key: offer.stand_in for offer in here if offer.stand_in is not None}
                self.files.write(spots[0].first, options, stand_ins)
                yield spots[0].first, options

    def _scored(self, offer: Offer, fitted: FittedBlock | None) -> Option:
        unexplained = None
        if fitted is not None:
            if fitted.result is None:
                raise RuntimeError(f"{offer.option.place} was not fitted")
            unexplained = fitted.result.unexplained
        score = self.bench.score([(offer.spot, offer.stand_in)], few=True)
        return dataclasses.replace(offer.option, unexplained=unexplained, score=score)

    def _about(self) -> dict[str, Any]:
        """What tells this library from others; a change of what is computed needs another format."""
        return {
            "format": 4,
            "weights": fingerprint_of(self.bench.model),
            "images": self.bench.images.fingerprint,
            "blocks": sorted({spot.first for spot in self._spots.values()}),
            "measure": self.bench.measure,
            # Another function has another name, or gives another number.
            "score": [self.bench.score_name, repr(self.bench.base_score)],
            "scores": None if self._known is None else self._known.fingerprint,
            "max_run": max(spot.stop - spot.first for spot in self._spots.values()),
            "kinds": {
                kind.name: {spot.place.name: kind.options(spot.place) for spot in self._spots.values()}
                for kind in self._kinds
            },
        }


def options_of(
    bench: Workbench, spots: Sequence[Spot], kinds: Sequence[Kind], known: Scores | None = None
) -> list[Option]:
    """What there is to choose from, nothing fitted: all that is offered, or those that known scores are of, with these.

    Raises:
        UserError: scores of another base.
    """
    options = offered(bench.model, spots, kinds)
    return options if known is None else with_scores(known, options, bench.blocks)


def base_costs(model: nn.Module, input_size: tuple[int, int, int] | None = None) -> dict[Measure, int]:
    """MACs of one image, of the model's own size where none is given, and parameters."""
    return {"macs": count_macs(model, input_size), "params": sum(parameter.numel() for parameter in model.parameters())}


def fitted_block(offer: Offer) -> FittedBlock:
    """The stand-in of an offer, to be fitted."""
    return FittedBlock(offer.spot.place.modules[0], offer.stand_in)  # type: ignore[arg-type]
