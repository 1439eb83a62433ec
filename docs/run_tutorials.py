"""Run the text notebooks in `tutorials/` and write them as notebooks with outputs: `make tutorials`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
# progress bars and the warning about missing widgets are not useful in a static page
os.environ |= {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
# path of the cell that raised a warning; it differs in every run
PLACE = re.compile(r"\S*/ipykernel_\d+/\d+\.py:\d+: ")

for text in sorted(FOLDER.glob("*.md")):
    if sys.argv[1:] and text.stem not in sys.argv[1:]:
        continue
    print(text.stem, flush=True)
    notebook = jupytext.read(text)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    with TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": folder}})
        client.execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.get("name") == "stderr":
            output.text = PLACE.sub("", output.text)
    jupytext.write(notebook, text.with_suffix(".ipynb"))
