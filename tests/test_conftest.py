"""Tests without real data are counted in the last lines of pytest, and fail in .ci/run."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TINY = """
import pytest

def test_of_a_missing_data_set():
    pytest.skip("real data are not at {shared}/data/retina_paired/bulk.h5ad")

@pytest.mark.skipif(True, reason="prepared public data are not at {shared}/data")
def test_of_any_data():
    pass

def test_skipped_for_another_reason():
    pytest.skip("no network")

def test_without_data():
    pass
"""


@pytest.fixture
def run_tiny(request, tmp_path, monkeypatch, capsys):
    """A function that runs four tests, two of them on real data, with the hooks of tests/conftest.py."""
    conftest = request.config.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    shared = tmp_path / "shared"
    monkeypatch.setattr(conftest, "SHARED", shared)
    monkeypatch.delenv(conftest.REQUIRE_DATA, raising=False)
    # pytest.main imports a module of the same name only once
    path = tmp_path / "repository" / f"test_{tmp_path.name}.py"
    path.parent.mkdir()
    path.write_text(TINY.format(shared=shared))

    def run(*, with_shared, required=False):
        if with_shared:
            shared.mkdir()
        if required:
            monkeypatch.setenv(conftest.REQUIRE_DATA, "1")
        plugins = [f"-pno:{name}" for name in ("cacheprovider", "faulthandler", "xdist")]
        options = ["--import-mode=importlib", "--capture=no", "--color=no", "-c/dev/null", f"--rootdir={path.parent}"]
        status = pytest.main([str(path), *options, *plugins], plugins=[conftest])
        return status, capsys.readouterr().out.splitlines()[-2:], shared

    return run


def test_tests_without_real_data_are_counted(run_tiny):
    status, (line, last), shared = run_tiny(with_shared=False)
    assert status == pytest.ExitCode.OK
    assert line == f"2 real-data test(s) skipped: {shared} is not there"
    assert "1 passed, 3 skipped" in last


def test_the_missing_data_set_is_named(run_tiny):
    _, (line, _), shared = run_tiny(with_shared=True)
    missing = shared / "data" / "retina_paired" / "bulk.h5ad"
    assert line == f"2 real-data test(s) skipped: {shared} is incomplete: real data are not at {missing}"


def test_ci_fails_if_a_data_set_is_missing(run_tiny):
    status, (_, last), _ = run_tiny(with_shared=True, required=True)
    assert status == pytest.ExitCode.TESTS_FAILED
    # pytest counts a failure before the test itself as an error
    assert "1 failed, 1 passed, 1 skipped" in last
    assert "1 error" in last


def test_ci_passes_without_any_data(run_tiny):
    status, (line, _), shared = run_tiny(with_shared=False, required=True)
    assert status == pytest.ExitCode.OK
    assert line == f"2 real-data test(s) skipped: {shared} is not there"


def test_ci_requires_data():
    script = (TESTS.parent / ".ci" / "run").read_text()
    assert script.index("export SCDECONV_REQUIRE_DATA=1") < script.index("make test")


def test_ci_runs_slow_tests_before_fast_tests():
    lines = (TESTS.parent / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make test-slow", "make test"]
