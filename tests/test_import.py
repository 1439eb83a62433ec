from __future__ import annotations

import json
import subprocess
import sys

import pytest

import scdeconv

IMPORT = """
import json, sys
import scdeconv
heavy = ["torch", "scvi", "scanpy", "anndata", "mudata", "lightning", "sklearn", "pandas", "numpy", "scipy", "matplotlib"]
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    assert json.loads(run(IMPORT)) == []


def test_preparing_data_does_not_import_torch():
    loaded = run("import sys, scdeconv; scdeconv.pp.pair; print([m for m in ('torch', 'scvi') if m in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("name", sorted(set(scdeconv.__all__) - {"read_bulk", "read_cells", "load_model"}))
def test_every_part_is_loaded_when_it_is_used(name):
    assert run(f"import scdeconv; print(scdeconv.{name}.__name__)").strip() == f"scdeconv.{name}"


def test_reading_bulk_does_not_import_torch_or_scanpy():
    loaded = run(
        "import sys, scdeconv; scdeconv.read_bulk; print([m for m in ('torch', 'scanpy') if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_dir_lists_the_parts_and_the_version():
    assert set(scdeconv.__all__) < set(dir(scdeconv))
    assert scdeconv.__version__.split(".")[0].isdigit()


def test_unknown_names_raise_attribute_error():
    with pytest.raises(AttributeError, match="module 'scdeconv' has no attribute 'nothing'"):
        scdeconv.nothing  # noqa: B018


def test_every_public_name_exists():
    for part in scdeconv.__all__:
        module = getattr(scdeconv, part)
        for name in module.__all__ if hasattr(module, "__all__") else []:
            assert hasattr(module, name)
