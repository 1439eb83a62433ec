"""The tables of the page "What the library checks", made from the docstrings and rules of the checks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from scdeconv._data import units
from scdeconv._data.checks import RULES

SOURCE = Path(__file__).parents[1] / "src" / "scdeconv"
# folders with checks: their title on the page
PARTS = {"_data/checks": "Objects in memory", "io/_tables": "Tables in files"}
# first words of the docstring of a check: what happens
OUTCOMES = {"Refuse": "error", "Raise": "error", "Report": "error", "Warn": "warning"}


def find_checks(folder: str) -> list[tuple[str, str, str]]:
    """Return subject, rule and outcome of each check in a folder, in the order of its files."""
    found = []
    for path in sorted((SOURCE / folder).glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        title = (ast.get_docstring(module) or "").splitlines()[0].removeprefix("Checks of ").rstrip(".")
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                rule = (ast.get_docstring(node) or "").splitlines()[0]
                outcome = OUTCOMES.get(rule.split(" ")[0])
                if outcome is not None:
                    found.append((title, rule, outcome))
    return found


def unit_table() -> str:
    """Return the units that are found from the values as Markdown."""
    found = {name: value for name, value in vars(units).items() if name.isupper() and isinstance(value, str)}
    del found["ARRAY_ADVICE"]
    rows = [(value, "refused" if value in units.REFUSED else "accepted") for value in found.values()]
    return _markdown(("found from the values", "as bulk"), rows)


def rule_table() -> str:
    """Return the rules of the arguments as Markdown, one row for each rule."""
    names: dict[str, list[str]] = {}
    for name, rule in RULES.items():
        names.setdefault(rule.expected, []).append(f"`{name}`")
    return _markdown(
        ("expected", "arguments"), [(what, ", ".join(sorted(each))) for what, each in sorted(names.items())]
    )


def check_table() -> str:
    """Return the tables of all checks as Markdown, with a heading for each part."""
    parts = []
    for folder, title in PARTS.items():
        parts.append(f"## {title}\n\n" + _markdown(("checked", "rule", "outcome"), find_checks(folder)))
    parts.append("## Units\n\n" + unit_table())
    parts.append("## Arguments\n\nThe same name has the same rule in every public function.\n\n" + rule_table())
    return "\n".join(parts)


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    # docstrings are reStructuredText: ``name`` becomes `name`, :func:`name` becomes `name`
    cells = [
        [re.sub(r":\w+:`~?([^`]*)`", r"`\1`", cell.replace("``", "`")).replace("|", "\\|") for cell in line]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def write_check_table(path: Path) -> None:
    """Write the tables to a file, whose folder is made."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(check_table(), encoding="utf-8")
