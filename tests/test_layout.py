"""Imports go down only, without cycles, and private names stay in their package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import scdeconv

SOURCE = Path(scdeconv.__file__).parent
# from the bottom up
ORDER = ("_data", "_stats", "_nn", "metrics", "io", "datasets", "pp", "models", "clustering", "tl", "pl", "cli", "demo")
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in ORDER)


def package_of(module):
    """Return the part of the package that a module belongs to: ``pp`` for ``scdeconv.pp._pair``."""
    return module.split(".")[1] if "." in module else ""


def imports_of(path):
    """Yield module and name of everything that a file imports from the package, also in functions."""
    module = ["scdeconv", *path.relative_to(SOURCE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parts = module[: -node.level] if node.level else []
            source = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                # "from scdeconv import pp" imports a part of the package
                is_part = source == "scdeconv" and alias.name in ORDER
                yield (f"{source}.{alias.name}", "") if is_part else (source, alias.name)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def own_imports(path):
    return [(module, name) for module, name in imports_of(path) if module.split(".")[0] == "scdeconv"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_go_down_only(path):
    mine = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for module, _ in own_imports(path):
        imported = package_of(module)
        assert imported != "", f"{path} imports the root of the package"
        if imported not in ("_version", mine):
            assert ORDER.index(imported) < ORDER.index(mine), f"{path} imports {module}"
            assert mine not in ("_data", "_stats"), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_private_names_stay_in_their_package(path):
    mine = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for module, name in own_imports(path):
        imported = package_of(module)
        if imported in (mine, "_version"):
            continue
        inner = module.split(".")[2:] + [name]
        assert not any(part.startswith("_") for part in inner), f"{path} imports {name} from {module}"


def test_numerics_know_no_anndata():
    for path in (SOURCE / "_stats").glob("*.py"):
        modules = {module.split(".")[0] for module, _ in imports_of(path)}
        assert modules.isdisjoint({"anndata", "mudata", "scanpy", "torch"}), path
