"""Before the site is built: the three rooms under the one name that they install as, where mkdocstrings reads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

ROOT = Path(__file__).parent.parent
ROOMS = {"cp_vision": ".", "recipes": "recipes", "search": "search"}


# Before mkdocstrings looks, in an event of this kind too, whether its paths exist.
@event_priority(100)
def on_config(config: Any) -> None:
    """Copy the files anew: links would be followed back to the rooms, where no name tells that they belong together."""
    package = ROOT / "build" / "packages" / "cp_vision"
    shutil.rmtree(package, ignore_errors=True)
    for room, place in ROOMS.items():
        folder = package / place
        folder.mkdir(parents=True, exist_ok=True)
        for path in (ROOT / room).glob("*.py"):
            shutil.copy(path, folder)
