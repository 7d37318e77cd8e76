"""Execute the notebook and keep its outputs in it.

    python examples/execute.py

It runs in a temporary folder, where its search begins anew. Warnings and times stay out of the file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from cp_vision.shared.files import write_text

NOTEBOOK = Path(__file__).parent / "digits.ipynb"


def execute(folder: Path) -> nbformat.NotebookNode:
    """The notebook as it is after all of its cells ran in ``folder``.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
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
