"""Every option of a base: fitted, scored alone, and kept in a folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cp_vision import Snapshot, UserError, count_macs
from cp_vision.anatomy.token_grid import TokenGrid
from cp_vision.fitting.batches import Batches
from cp_vision.fitting.fit_places import bytes_of_sums, fit_places
from cp_vision.fitting.fitted_block import FittedBlock
from cp_vision.surgery.replace_blocks import make_replacement
from cp_vision.surgery.stand_ins import stand_in_options

from .images import FitImages
from .kinds import DROP, Kind
from .library_files import LibraryFiles, fingerprint_of
from .option import Candidate, Option
from .places import Spot, find_spots
from .workbench import Change, Workbench

__all__ = ["Library", "Tell"]

# Told what is done, and of how much.
Tell = Callable[[int, int, str], None]

# Sums of several blocks are gathered in one pass of the base while they take no more.
_BYTES = 2**29


class Library:
    """All options of a base, with their stand-ins in a folder.

    Blocks that the folder has already are taken from there; the result is the same.

    Args:
        bench: the base and its images.
        kinds: what may take a place, beside nothing.
        max_run: blocks of a run at most.
        folder: for the files.
        tell: called after each block.

    Attributes:
        options: all, by first block.
        base_macs: of the base, for one image.

    Raises:
        UserError: no place to change, or a folder of something else.
    """

    def __init__(
        self, bench: Workbench, kinds: Sequence[Kind], max_run: int, folder: Path, tell: Tell | None = None
    ) -> None:
        self.bench, self._kinds = bench, kinds
        spots = find_spots(bench.model, max_run)
        self._spots = {spot.place.name: spot for spot in spots}
        self.base_macs = count_macs(bench.model)
        self.files = LibraryFiles(folder, self._about(max_run))
        self.options: list[Option] = []
        firsts = sorted({spot.first for spot in spots})
        found = {first: self.files.read(first) for first in firsts}
        missing = [first for first in firsts if found[first] is None]
        done = len(firsts) - len(missing)
        for group in self._groups(spots, missing):
            for first, options in self._fit(group):
                found[first] = options
                done += 1
                if tell is not None:
                    tell(done, len(firsts), f"options at {bench.blocks[first]}")
        for first in firsts:
            self.options += found[first] or []

    def changes(self, candidate: Candidate, model: nn.Module | None = None) -> list[Change]:
        """What a candidate puts where, with the library's stand-ins.

        Args:
            candidate: the candidate.
            model: what it is for, which may get hooks that tell a grid; None takes the workbench's.
        """
        model = self.bench.model if model is None else model
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
        """Score of a candidate with the library's stand-ins; lower is better."""
        # Hooks that tell a grid go with it.
        with Snapshot(self.bench.model):
            return self.bench.score(self.changes(candidate))

    def _groups(self, spots: Sequence[Spot], firsts: Sequence[int]) -> Iterator[list[list[Spot]]]:
        """Places by first block, as many of these as their sums may take memory."""
        group: list[list[Spot]] = []
        taken = 0
        for first in firsts:
            here = [spot for spot in spots if spot.first == first]
            with Snapshot(self.bench.model):
                paths: dict[str, list[FittedBlock]] = {}
                for _, _, fitted in self._trials(here):
                    paths.setdefault(fitted.path, []).append(fitted)
                need = sum(bytes_of_sums(fitted) for fitted in paths.values())
            if group and taken + need > _BYTES:
                yield group
                group, taken = [], 0
            group.append(here)
            taken += need
        if group:
            yield group

    def _trials(self, spots: Sequence[Spot]) -> list[tuple[Spot, Kind, FittedBlock]]:
        """A new stand-in for each place and kind that is offered there."""
        trials = []
        tokens = functools.cache(lambda: TokenGrid(self.bench.model))
        for spot in spots:
            for kind in self._kinds:
                if (options := kind.options(spot.place)) is None:
                    continue
                checked = stand_in_options(options)
                try:
                    made = make_replacement(self.bench.model, spot.place, checked, tokens)
                except UserError:
                    # It costs as much as what it replaces.
                    continue
                trials.append((spot, kind, FittedBlock(spot.place.modules[0], made.eval())))
        return trials

    def _fit(self, group: Sequence[Sequence[Spot]]) -> Iterator[tuple[int, list[Option]]]:
        model = self.bench.model
        with Snapshot(model):
            trials = self._trials([spot for spots in group for spot in spots])
            if trials:
                images: Any = FitImages(self.bench.images)
                fit_places(model, [fitted for *_, fitted in trials], Batches(images, model))
            for spots in group:
                here = [(spot, kind, fitted) for spot, kind, fitted in trials if spot in spots]
                options = [self._dropped(spot) for spot in spots if not spot.half]
                stand_ins = {}
                for spot, kind, fitted in here:
                    option = self._option(spot, kind, fitted)
                    stand_ins[option.key] = fitted.replacement
                    options.append(option)
                self.files.write(spots[0].first, options, stand_ins)
                yield spots[0].first, options

    def _dropped(self, spot: Spot) -> Option:
        place = spot.place
        of_place = (place.name, DROP, True, "", spot.first, spot.stop, place.modules)
        return Option(*of_place, options={}, saved=place.macs, score=self.bench.score([(spot, None)], few=True))

    def _option(self, spot: Spot, kind: Kind, fitted: FittedBlock) -> Option:
        place, stand_in = spot.place, fitted.stand_in
        if fitted.result is None:
            raise RuntimeError(f"{place.name} was not fitted")
        return Option(
            *(place.name, kind.name, kind.plain, spot.half, spot.first, spot.stop, place.modules),
            options=fitted.replacement.options,
            saved=place.macs - place.count * stand_in.macs(place.grid),
            unexplained=fitted.result.unexplained,
            score=self.bench.score([(spot, fitted.replacement)], few=True),
        )

    def _about(self, max_run: int) -> dict[str, Any]:
        """What tells this library from others; a change of what is computed needs another format."""
        return {
            "format": 1,
            "weights": fingerprint_of(self.bench.model),
            "images": self.bench.images.fingerprint,
            "measure": self.bench.measure,
            # Another function has another name, or gives another number.
            "score": [self.bench.score_name, repr(self.bench.base_score)],
            "max_run": max_run,
            "kinds": {
                kind.name: {spot.place.name: kind.options(spot.place) for spot in self._spots.values()}
                for kind in self._kinds
            },
        }
