"""Execute the notebook and keep its outputs in it.

    python examples/execute.py

It runs in a temporary folder, where its search begins anew. Warnings and times stay out of the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from cp_vision.shared.files import write_text

NOTEBOOK = Path(__file__).parent / "digits.ipynb"


def execute(folder: Path, changes: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """The notebook as it is after all of its cells ran in ``folder``.

    Args:
        folder: where it writes.
        changes: words of its code, and what is run in their place: a shorter search, for instance.

    Raises:
        ValueError: if a word to change doesn't stand in exactly one place.
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for word, instead in (changes or {}).items():
        if sum(cell.source.count(word) for cell in notebook.cells) != 1:
            raise ValueError(f"{word!r} doesn't stand in exactly one place of {NOTEBOOK.name}")
        for cell in notebook.cells:
            cell.source = cell.source.replace(word, instead)
    options = {"timeout": None, "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(Path(folder))
    write_text(NOTEBOOK, nbformat.writes(notebook) + "\n")
