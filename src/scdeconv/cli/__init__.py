"""Command line ``scdeconv``, a thin layer over the library: one module of ``_commands`` for each command."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from scdeconv._data.progress import steps_in_logs

from ._parser import make_parser

if TYPE_CHECKING:
    from collections.abc import Sequence

# exit codes; argparse exits with 2 for wrong usage
FAILED = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 after an error, 130 after Ctrl-C; argparse exits with 2."""
    args = make_parser().parse_args(argv)
    if hasattr(sys.stdout, "reconfigure"):
        # write each line to a log immediately
        sys.stdout.reconfigure(line_buffering=True)
    with warnings.catch_warnings(), steps_in_logs():
        warnings.showwarning = _say_warning
        try:
            # lazy import: it takes seconds
            from ._run import carry_out

            complete = carry_out(args)
        except KeyboardInterrupt:
            print(f"scdeconv {args.command}: interrupted, nothing was written", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            # one message and an exit code for any error, for use in pipelines
            if args.debug:
                raise
            print(f"scdeconv {args.command}: error: {_describe(error)}", file=sys.stderr)
            return FAILED
    if not complete:
        print(f"scdeconv {args.command}: interrupted, the results so far were written", file=sys.stderr)
    return 0 if complete else INTERRUPTED


def _describe(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    expected = isinstance(error, (ValueError, TypeError, KeyError, OSError, RuntimeError)) and text
    return text if expected else f"{type(error).__name__}: {text} (--debug shows where)"


def _say_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"scdeconv: warning: {message}", file=sys.stderr)
