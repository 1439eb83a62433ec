"""Run the text notebooks in `tutorials/` and write them as notebooks with outputs: `make tutorials`.

Writes the time and memory of each tutorial below its title, in the text and in the notebook.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import jupytext
import nbformat
from nbclient import NotebookClient

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
# progress bars and the warning about missing widgets are not useful in a static page; one thread: CPU time is comparable
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# path of the cell that raised a warning; it differs in every run
PLACE = re.compile(r"\S*/ipykernel_\d+/\d+\.py:\d+: ")
# the title, and the line below it that this program writes
TITLE = re.compile(r"^(# .+\n)(?:\n\{download\}.+\n)?", re.MULTILINE)
# CPU seconds and bytes of the kernel and its child processes; the unit of ru_maxrss is KiB on Linux
USAGE = """\
import resource, sys
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
unit = 1 if sys.platform == "darwin" else 1024
print(sum(own.ru_utime + own.ru_stime for own in used), max(own.ru_maxrss for own in used) * unit)
"""


def run(notebook: NotebookNode) -> tuple[float, float]:
    """Execute the cells in an empty folder; return CPU seconds and the largest memory in bytes."""
    notebook.cells.append(nbformat.v4.new_code_cell(USAGE))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, record_timing=False, resources=resources).execute()
    seconds, memory = notebook.cells.pop()["outputs"][0]["text"].split()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if output.get("name") == "stderr":
            output.text = PLACE.sub("", output.text)
    return float(seconds), float(memory)


def with_header(text: str, name: str, seconds: float, memory: float) -> str:
    """Return the text with the download link, the time and the memory below its title."""
    line = (
        f"{{download}}`Download this notebook <{name}.ipynb>`: {max(seconds / 60, 0.1):.1f} minutes on one core, "
        f"{memory / 1e9:.1f} GB of memory."
    )
    return TITLE.sub(lambda match: f"{match[1]}\n{line}\n", text, count=1)


def main(names: list[str]) -> None:
    os.environ.update(QUIET | ONE_THREAD)
    for path in sorted(FOLDER.glob("*.md")):
        if names and path.stem not in names:
            continue
        print(path.stem, flush=True)
        notebook = jupytext.read(path)
        used = run(notebook)
        path.write_text(with_header(path.read_text(encoding="utf-8"), path.stem, *used), encoding="utf-8")
        title = next(cell for cell in notebook.cells if cell.source.startswith("# "))
        title.source = with_header(f"{title.source}\n", path.stem, *used).removesuffix("\n")
        jupytext.write(notebook, path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
