"""The examples of the pages of the command line run, in the order of the commands."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from scdeconv.cli._parser import COMMANDS, make_parser

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "user_guide" / "command_line"
# takes minutes; tests/cli/test_demo.py runs it on small data
NOT_RUN = "demo"


def lines_of(page):
    """Return the commands in the code blocks of a page."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def run_up_to(tmp_path_factory, write_inputs, run_line):
    """Run the pages up to one of them in one folder, each once; return the folder."""
    folder = tmp_path_factory.mktemp("pages")
    # a page may use the results of all pages before it; predict needs its own bulk only
    write_inputs(folder)
    waiting = [name for name in COMMANDS if name not in (NOT_RUN, "methods")]
    waiting.insert(1, "methods")

    def run(name):
        with contextlib.chdir(folder):
            while name in waiting:
                for line in lines_of(PAGES / f"{waiting[0]}.md"):
                    assert run_line(line) == 0, line
                waiting.pop(0)
        return folder

    return run


def test_every_command_has_a_page():
    assert sorted(path.stem for path in PAGES.iterdir()) == sorted(COMMANDS)
    overview = (PAGES.parent / "command_line.md").read_text(encoding="utf-8")
    assert all(f"{{doc}}`{name} <command_line/{name}>`" in overview for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_page_shows_its_own_command(name):
    lines = lines_of(PAGES / f"{name}.md")
    assert any(line.startswith(f"scdeconv {name}") for line in lines)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != NOT_RUN])
def test_examples_of_the_page_run(name, run_up_to):
    folder = run_up_to(name)
    named = [shlex.split(line, comments=True) for line in lines_of(PAGES / f"{name}.md")]
    outputs = [words[words.index("-o") + 1] for words in named if "-o" in words and "--dry-run" not in words]
    assert all((folder / output).exists() for output in outputs if output != "-")


def test_overview_and_readme_examples_parse():
    readme = DOCS.parent / "README.md"
    for page in (PAGES.parent / "command_line.md", readme, PAGES / "demo.md"):
        lines = [line for line in lines_of(page) if line.startswith("scdeconv")]
        assert lines, page
        for line in lines:
            make_parser().parse_args(shlex.split(line)[1:])


def test_nf_core_tables_to_report_in_five(tmp_path, monkeypatch, write_inputs, run_line):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = lines_of(DOCS / "pipelines" / "nf_core.md")
    assert len(lines) == 5
    for line in lines:
        assert run_line(line) == 0, line
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "held-out donors" in html
