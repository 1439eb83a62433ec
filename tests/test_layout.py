"""Imports go down only, without cycles; private names stay in their package; files, folders and test names are short."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

import scdeconv

ROOT = Path(__file__).parents[1]
MAX_WORDS = 8
_specification = importlib.util.spec_from_file_location("packages", ROOT / "docs" / "packages.py")
packages = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(packages)

ORDER = packages.ORDER
SOURCES = packages.read_sources()
# all but the root's __init__.py and _version.py
FILES = [path for path in SOURCES if len(path.parts) > 1 or path.stem in ORDER]
LINES = {path.as_posix(): len(text.splitlines()) for path, text in SOURCES.items()}
FOLDERS = packages.files_per_folder(SOURCES)

each_file = pytest.mark.parametrize("path", FILES, ids=str)


def package_of(module):
    """Return the part of the package that a module belongs to: ``pp`` for ``scdeconv.pp._pair``."""
    return module.split(".")[1] if "." in module else ""


def own_imports(path):
    found = packages.imports_of(path, SOURCES[path])
    return [(module, name) for module, name in found if module.split(".")[0] == "scdeconv"]


def test_sources_belong_to_the_tested_package():
    assert Path(scdeconv.__file__).parent == packages.SOURCE


@each_file
def test_imports_go_down_only(path):
    mine = packages.part_of(path)
    for module, _ in own_imports(path):
        imported = package_of(module)
        assert imported != "", f"{path} imports the root of the package"
        if imported not in ("_version", mine):
            assert ORDER.index(imported) < ORDER.index(mine), f"{path} imports {module}"
            assert mine not in ("_data", "_stats") or imported == "_process", f"{path} imports {module}"


@each_file
def test_private_names_stay_in_their_package(path):
    mine = packages.part_of(path)
    for module, name in own_imports(path):
        imported = package_of(module)
        if imported in (mine, "_version"):
            continue
        inner = module.split(".")[2:] + [name]
        assert not any(part.startswith("_") for part in inner), f"{path} imports {name} from {module}"


def test_numerics_do_not_import_anndata():
    for path in FILES:
        if packages.part_of(path) == "_stats":
            modules = {module.split(".")[0] for module, _ in packages.imports_of(path, SOURCES[path])}
            assert modules.isdisjoint({"anndata", "mudata", "scanpy", "torch"}), path


def test_no_file_has_more_than_300_lines():
    assert not {path for path, lines in LINES.items() if lines > packages.MAX_LINES}


def test_no_folder_has_more_than_14_files():
    assert not {folder for folder, files in FOLDERS.items() if files > packages.MAX_FILES}


def names_of_tests(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


TEST_FILES = sorted((ROOT / "tests").rglob("test_*.py"))
each_test_file = pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())


@each_test_file
def test_test_names_have_at_most_eight_words(path):
    words = {name: len(name.removeprefix("test_").split("_")) for name in names_of_tests(path)}
    assert words
    assert not {name for name, number in words.items() if number > MAX_WORDS}


@each_test_file
def test_test_names_are_unique_in_their_module(path):
    names = names_of_tests(path)
    assert len(names) == len(set(names))


class TestPicture:
    """docs/_static/packages.svg. If it is out of date, run ``python docs/packages.py``."""

    picture = packages.PICTURE.read_text(encoding="utf-8")
    boxes = re.findall(r'data-part="(\w+)" data-files="(\d+)" data-imports="([\w ]*)"', picture)
    arrows = re.findall(r'data-from="(\w+)" data-to="(\w+)" d="M[\d.]+,([\d.]+) .*[ ,]([\d.]+)"', picture)

    def test_picture_shows_the_current_imports(self):
        shown = {(part, imported) for part, _, imports in self.boxes for imported in imports.split()}
        assert shown == packages.edges_of(SOURCES)

    def test_picture_shows_the_current_number_of_files(self):
        shown = {part: int(files) for part, files, _ in self.boxes}
        files = [packages.part_of(path) for path in FILES if path.name != "__init__.py"]
        assert shown == {part: files.count(part) for part in ORDER}

    def test_arrows_point_down(self):
        assert self.arrows
        assert all(float(start) < float(end) for _, _, start, end in self.arrows)

    def test_every_import_is_a_path_of_arrows(self):
        reached = {part: {end for start, end, *_ in self.arrows if start == part} for part in ORDER}
        for part in ORDER:
            reached[part] = reached[part].union(*(reached[other] for other in reached[part]))
        assert all(imported in reached[part] for part, imported in packages.edges_of(SOURCES))


SMALL = {
    PurePosixPath("metrics.py"): "import numpy\n",
    PurePosixPath("tl/__init__.py"): "from ._train import train\n",
    PurePosixPath("tl/_train.py"): (
        '"""Bisque is named here."""\n'
        "from typing import TYPE_CHECKING\n"
        "from scdeconv import metrics\n"
        "if TYPE_CHECKING:\n"
        "    from scdeconv.pl import history\n"
        "DEFAULT = 'MuSiC'  # not scaden\n"
    ),
}


def test_type_checking_imports_are_not_arrows():
    assert packages.edges_of(SMALL) == {("tl", "metrics")}


def test_arrows_implied_by_a_path_are_removed():
    edges = {("cli", "tl"), ("tl", "pp"), ("pp", "_data"), ("cli", "pp"), ("cli", "_data"), ("pl", "_data")}
    assert packages.transitive_reduction(edges) == {("cli", "tl"), ("tl", "pp"), ("pp", "_data"), ("pl", "_data")}


def test_sizes_are_measured_without_comments_and_docstrings():
    found = packages.measure(SMALL)
    assert found["files"] == "2"
    assert found["lines of the largest file"] == "6 (`tl/_train.py`)"
    assert [found[f"files whose code names `{name}`"] for name in ("bisque", "music", "scaden")] == ["0", "1", "0"]
    assert found["files in `tl`"] == "1"


def test_sources_of_a_commit_are_read_from_git(tmp_path, monkeypatch):
    source = tmp_path / "src" / "scdeconv"
    source.mkdir(parents=True)
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    monkeypatch.setattr(packages, "SOURCE", source)
    (source / "metrics.py").write_text("first = 1\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "first", "--no-verify")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (source / "metrics.py").write_text("second = 2\n")
    assert packages.read_sources("HEAD") == {PurePosixPath("metrics.py"): "first = 1\n"}
    assert packages.read_sources() == {PurePosixPath("metrics.py"): "second = 2\n"}


def test_table_is_written_between_the_markers(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(packages.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(packages, "PAGE", page)
    packages.write_between_markers("| a table |")
    packages.write_between_markers("| another table |")
    text = page.read_text(encoding="utf-8")
    assert "| another table |\n<!-- end of sizes -->" in text
    assert "| a table |" not in text
