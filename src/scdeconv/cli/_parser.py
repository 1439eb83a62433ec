"""Parser of all commands: one module of ``_commands`` for each, found by its name."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from scdeconv._version import __version__

from ._options import add_common

# in the order of the help
COMMANDS = (
    *("methods", "pair", "train", "predict", "evaluate", "benchmark", "tune", "cluster", "simulate", "plot", "report"),
    "demo",
)


def command_module(name: str) -> Any:
    """Return the module of a command: ``SUMMARY``, ``add_options``, ``files`` and ``run``."""
    return import_module(f"scdeconv.cli._commands.{name}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="scdeconv", description="Cell-type fractions of bulk RNA-seq.")
    parser.add_argument("--version", action="version", version=f"scdeconv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in COMMANDS:
        module = command_module(name)
        command = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.add_options(command)
        add_common(command, writes=name != "methods")
        # for wrong combinations of options, which argparse does not know
        command.set_defaults(wrong_usage=command.error)
    return parser
