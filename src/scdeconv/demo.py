"""``python -m scdeconv.demo``: the same as ``scdeconv demo``."""

from __future__ import annotations

import sys

from scdeconv.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
