"""Command line ``scdeconv``, a thin layer over the library: one module of ``_commands`` for each command."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from scdeconv._data.files import published_paths
from scdeconv._process import interrupts_raised, received_interrupt

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from pathlib import Path

# exit codes; argparse exits with 2 for wrong usage
FAILED = 1
# 130 for SIGINT (Ctrl-C), 143 for SIGTERM, as in shells
SIGNALLED = 128
SIGINT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Returns
    -------
    0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM; argparse exits with 2.
    """
    # first, so that a signal during the imports is handled
    with interrupts_raised(), published_paths() as written:
        try:
            from ._streams import lasting_streams

            with lasting_streams() as failed:
                code = _run_command(argv, written)
                sys.stdout.flush()
        except KeyboardInterrupt:
            return _say_interrupted("", written)
        if failed:
            print(f"scdeconv: could not write to the standard output: {failed[0].strerror}", file=sys.stderr)
            # without output files, the standard output is the result
            return code if written else code or FAILED
    return code


def _run_command(argv: Sequence[str] | None, written: Sequence[Path]) -> int:
    from scdeconv._data.progress import steps_in_logs

    from ._parser import make_parser

    args = make_parser().parse_args(argv)
    with warnings.catch_warnings(), steps_in_logs():
        warnings.showwarning = _say_warning
        try:
            # lazy import: it takes seconds
            from ._run import carry_out

            complete = carry_out(args)
        # libraries may raise other errors for a signal; Lightning exits
        except (KeyboardInterrupt, SystemExit, Exception) as error:
            if isinstance(error, KeyboardInterrupt) or received_interrupt():
                return _say_interrupted(args.command, written)
            if isinstance(error, SystemExit) or args.debug:
                raise
            return _say_error(args, error)
    if complete:
        return 0
    return _say_interrupted(args.command, written, so_far=True)


def _say_interrupted(command: str, written: Sequence[Path], *, so_far: bool = False) -> int:
    """Say what was written and return the exit code of the signal."""
    names = ", ".join(map(str, dict.fromkeys(written)))
    what = f"the results{' so far' if so_far else ''} were written to {names}" if written else "nothing was written"
    print(f"{' '.join(['scdeconv', command]).strip()}: interrupted, {what}", file=sys.stderr)
    return SIGNALLED + (received_interrupt() or SIGINT)


def _say_error(args: Namespace, error: Exception) -> int:
    """Say one message for any error, for use in pipelines."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    expected = isinstance(error, (ValueError, TypeError, KeyError, OSError, RuntimeError)) and text
    message = text if expected else f"{type(error).__name__}: {text} (--debug shows where)"
    print(f"scdeconv {args.command}: error: {message}", file=sys.stderr)
    return FAILED


def _say_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"scdeconv: warning: {message}", file=sys.stderr)
