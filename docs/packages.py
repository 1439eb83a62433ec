"""Reads the imports and sizes of the package, draws them and writes the table of sizes: ``python docs/packages.py``.

The picture shows the working tree. The table compares commits: by default ``python docs/packages.py 5e0cb27 HEAD``.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import io
import statistics
import subprocess
import tarfile
from collections import Counter
from html import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Sources = dict[PurePosixPath, str]
    Edges = set[tuple[str, str]]

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "scdeconv"
PICTURE = ROOT / "docs" / "_static" / "packages.svg"
PAGE = ROOT / "docs" / "contributing.md"
# from the bottom up
ORDER = (
    "_process",
    "_data",
    "_stats",
    "_nn",
    "metrics",
    "io",
    "datasets",
    "pp",
    "models",
    "clustering",
    "tl",
    "pl",
    "cli",
    "demo",
)


# methods of both commits that the table compares, each a word that means nothing else
METHODS = ("bisque", "music", "dwls", "bayesprism", "scaden")
MAX_LINES, MAX_FILES = 300, 14


def read_sources(commit: str | None = None) -> Sources:
    """Return the text of every Python file, by its path in the package; of the working tree, or of a commit."""
    if commit is None:
        found = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    else:
        inside = SOURCE.relative_to(ROOT).as_posix()
        archive = subprocess.run(["git", "archive", commit, inside], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            found = {
                member.name.removeprefix(f"{inside}/"): files.extractfile(member).read().decode()
                for member in files
                if member.name.endswith(".py")
            }
    return {PurePosixPath(path): found[path] for path in sorted(found)}


def imports_of(path: PurePosixPath, text: str, *, for_types: bool = True) -> Iterator[tuple[str, str]]:
    """Yield module and name of everything that a file of the package imports, also in functions and for type checkers."""
    module = ["scdeconv", *path.with_suffix("").parts]
    tree = ast.parse(text)
    if not for_types:
        for node in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
            if ast.unparse(node.test).endswith("TYPE_CHECKING"):
                node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parts = module[: -node.level] if node.level else []
            source = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                # "from scdeconv import pp" imports a part of the package
                is_part = source == "scdeconv" and alias.name in ORDER
                yield (f"{source}.{alias.name}", "") if is_part else (source, alias.name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def part_of(path: PurePosixPath) -> str:
    """Return the part of the package that a file belongs to: ``pp`` for ``pp/_pair.py``."""
    return path.parts[0].removesuffix(".py")


def edges_of(sources: Sources) -> Edges:
    """Return which part imports which other when it runs."""
    edges = set()
    for path, text in sources.items():
        for module, _ in imports_of(path, text, for_types=False):
            imported = module.split(".")[1] if module.startswith("scdeconv.") else ""
            if part_of(path) in ORDER and imported in ORDER and imported != part_of(path):
                edges.add((part_of(path), imported))
    return edges


def files_per_folder(sources: Sources) -> Counter[str]:
    """Return the number of files of each folder and its name in the package, without ``__init__.py``."""
    return Counter(path.parent.as_posix() for path in sources if path.name != "__init__.py")


# the picture

WIDTH, ROW, GAP, MARGIN, INSET = 980, 62, 46, 16, 24


class Box(NamedTuple):
    """A part of the package in the picture: its row from the top, its left and right end, and what it holds."""

    row: int
    left: float
    right: float
    role: str

    @property
    def top(self) -> float:
        return MARGIN + self.row * (ROW + GAP)

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


BOXES = {
    "demo": Box(0, 410, 570, "scdeconv demo"),
    "cli": Box(1, 20, 960, "the command line"),
    "tl": Box(3, 230, 700, "train, predict, evaluate, benchmark, tune, cluster"),
    "pl": Box(2, 690, 960, "plots, report"),
    "clustering": Box(4, 230, 430, "models of unlabelled cells"),
    "models": Box(4, 470, 790, "deconvolution methods"),
    "pp": Box(5, 430, 710, "pair, calibrate, augment, simulate"),
    "datasets": Box(6, 20, 210, "public and generated data"),
    "_nn": Box(6, 240, 400, "torch"),
    "io": Box(6, 430, 640, "text, h5ad, model files"),
    "metrics": Box(6, 670, 960, "errors of fractions"),
    "_data": Box(7, 20, 560, "AnnData in: keys, units, genes, validation, reference"),
    "_stats": Box(7, 590, 960, "numerics: NumPy in and NumPy out"),
    "_process": Box(8, 20, 960, "what all threads share: signals, numbers of threads"),
}


def transitive_reduction(edges: Edges) -> Edges:
    """Return the edges that no longer path of edges replaces."""
    below = {part: {target for source, target in edges if source == part} for part in ORDER}
    # from the bottom up
    reached: dict[str, set[str]] = {}
    for part in ORDER:
        reached[part] = below[part].union(*(reached.get(target, set()) for target in below[part]))
    return {
        (source, target)
        for source, target in edges
        if not any(target in reached[other] for other in below[source] if other != target)
    }


def _ports(edges: Edges) -> dict[tuple[str, str], tuple[float, float]]:
    """Return where each arrow leaves its upper box and enters its lower one: below each other where the boxes are."""
    wanted: dict[tuple[str, str], list[float]] = {}
    for edge in edges:
        upper, lower = (BOXES[part] for part in edge)
        narrow = min(upper, lower, key=lambda box: box.right - box.left)
        common = max(upper.left, lower.left), min(upper.right, lower.right)
        aims = [narrow.middle] * 2 if common[0] + 2 * INSET < common[1] else [lower.middle, upper.middle]
        bounds = [common] * 2 if aims[0] == aims[1] else [(box.left, box.right) for box in (upper, lower)]
        wanted[edge] = [min(max(x, low + INSET), high - INSET) for x, (low, high) in zip(aims, bounds, strict=True)]
    for side in (0, 1):
        for part, box in BOXES.items():
            # arrows of one box keep their order and some distance
            mine = [edge for edge in edges if edge[side] == part]
            mine.sort(key=lambda edge: (wanted[edge][side], BOXES[edge[1 - side]].middle))
            for first, second in zip(mine, mine[1:], strict=False):
                wanted[second][side] = max(wanted[second][side], wanted[first][side] + INSET)
            limit = box.right - INSET
            for edge in reversed(mine):
                wanted[edge][side] = min(wanted[edge][side], limit)
                limit = wanted[edge][side] - INSET
    return {edge: (start, end) for edge, (start, end) in wanted.items()}


def _route(source: Box, target: Box, start: float, end: float) -> str:
    """Return the path of an arrow, which passes between the boxes of the rows that it crosses."""
    x, y = start, source.top + ROW
    steps = [f"M{x:.0f},{y:.0f}"]
    for row in range(source.row + 1, target.row + 1):
        top = MARGIN + row * (ROW + GAP)
        aim = end
        if row < target.row:
            walls = [(box.left - 15, box.right + 15) for box in BOXES.values() if box.row == row]
            free = [x, end, *(wall for pair in walls for wall in pair)]
            aim = min(
                (place for place in free if not any(low < place < high for low, high in walls)),
                key=lambda place: abs(place - x) + abs(place - end),
            )
        arrival = top - (7 if row == target.row else 0)
        middle = (y + arrival) / 2
        steps.append(f"C{x:.0f},{middle:.0f} {aim:.0f},{middle:.0f} {aim:.0f},{arrival:.0f}")
        x, y = aim, top
        if row < target.row:
            y += ROW
            steps.append(f"V{y:.0f}")
    return " ".join(steps)


def draw(sources: Sources) -> str:
    """Return the picture as SVG. It has the arrows of the transitive reduction; ``data-imports`` lists all imports."""
    edges, folders = edges_of(sources), files_per_folder(sources)
    drawn = transitive_reduction(edges)
    ports = _ports(drawn)
    height = max(box.top for box in BOXES.values()) + ROW + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" text-anchor="middle">',
        "<title>Packages of scdeconv and their imports</title>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="2" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L10,5 L0,10 z" fill="#333333"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<g fill="none" stroke="#333333" stroke-width="1.6" marker-end="url(#head)">',
    ]
    for source, target in sorted(drawn):
        path = _route(BOXES[source], BOXES[target], *ports[source, target])
        lines.append(f'<path data-from="{source}" data-to="{target}" d="{path}" marker-end="url(#head)"/>')
    lines.append("</g>")
    for part in reversed(ORDER):
        box = BOXES[part]
        inside = {name: n for name, n in folders.items() if name == part or name.startswith(f"{part}/")}
        total = sum(inside.values()) or 1
        counts = [f"{PurePosixPath(name).name} {n}" for name, n in sorted(inside.items()) if name != part]
        files = f"{total} file{'s' if total > 1 else ''}" + (f" ({', '.join(counts)})" if counts else "")
        imports = " ".join(sorted(target for source, target in edges if source == part))
        internal = part.startswith("_")
        fill, stroke = ("#eeeeee", "#777777") if internal else ("#dcebf7", "#0072b2")
        lines += [
            f'<g data-part="{part}" data-files="{total}" data-imports="{imports}">',
            f'<rect x="{box.left}" y="{box.top}" width="{box.right - box.left}" height="{ROW}" rx="6" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="1.4"/>',
            f'<text x="{box.middle:.0f}" y="{box.top + 20}" font-size="16" font-weight="bold">{part}</text>',
            f'<text x="{box.middle:.0f}" y="{box.top + 38}" font-size="12.5">{escape(box.role)}</text>',
            f'<text x="{box.middle:.0f}" y="{box.top + 54}" font-size="12" fill="#444444">{escape(files)}</text>',
            "</g>",
        ]
    return "\n".join([*lines, "</svg>", ""])


# the table


def code_of(text: str) -> str:
    """Return a file in small letters, without comments and docstrings."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    return ast.unparse(tree).lower()


def measure(sources: Sources) -> dict[str, str]:
    """Return what the table shows of one commit."""
    lines = {path: len(text.splitlines()) for path, text in sources.items() if path.name != "__init__.py"}
    largest = max(lines, key=lines.__getitem__)
    folders = {"the root" if name == "." else f"`{name}`": n for name, n in files_per_folder(sources).items()}
    code = [code_of(text) for text in sources.values()]
    return {
        "files": str(len(lines)),
        "lines, all files": f"{sum(lines.values()):,}",
        "lines of a file, median": f"{statistics.median(lines.values()):.0f}",
        "lines of the largest file": f"{lines[largest]} (`{largest}`)",
        f"files of more than {MAX_LINES} lines": str(sum(n > MAX_LINES for n in lines.values())),
        f"folders of more than {MAX_FILES} files": str(sum(n > MAX_FILES for n in folders.values())),
        **{f"files whose code names `{name}`": str(sum(name in text for text in code)) for name in METHODS},
        **{f"files in {name}": str(n) for name, n in sorted(folders.items())},
    }


def make_table(commits: Iterable[str]) -> str:
    """Return the Markdown table that compares commits, and how it was made."""
    names = [_git("rev-parse", "--short", commit) for commit in commits]
    dates = [_git("show", "--no-patch", "--format=%cs", name) for name in names]
    columns = [measure(read_sources(name)) for name in names]
    rows = list(dict.fromkeys(row for column in columns for row in column))
    # folders after all else, where a commit lacks some
    rows.sort(key=lambda row: (row.startswith("files in "), row if row.startswith("files in ") else ""))
    return "\n".join(
        [
            f"Made on {datetime.date.today().isoformat()} by `python docs/packages.py {' '.join(names)}` from `git archive` of",
            "both commits. `__init__.py` is not counted as a file of a folder; comments and docstrings are not code.",
            "",
            "| | " + " | ".join(f"{name} ({date})" for name, date in zip(names, dates, strict=True)) + " |",
            "|---|" + "---|" * len(names),
            *("| " + " | ".join([row, *(column.get(row, "–") for column in columns)]) + " |" for row in rows),
        ]
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def write_between_markers(table: str) -> None:
    """Replace what stands between the markers of the page."""
    start, end = "<!-- sizes: written by docs/packages.py -->", "<!-- end of sizes -->"
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(start)
    PAGE.write_text(f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    """Write the picture and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", default=["5e0cb27", "HEAD"], help="columns of the table")
    PICTURE.write_text(draw(read_sources()), encoding="utf-8")
    write_between_markers(make_table(parser.parse_args().commits))
    print(f"Written: {PICTURE.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
