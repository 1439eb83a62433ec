"""CPU seconds of `tl.train(mdata)` at an earlier commit and now, and the largest difference of an estimate.

    python benchmarks/default_speed.py 2ef9dfd

Both train on the cohort of `scdeconv demo` (seed 0), in turn, in processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


def train() -> None:
    """Train the default once and print seconds and estimates as JSON."""
    from scdeconv import datasets, pp, tl

    with contextlib.redirect_stdout(io.StringIO()):
        mdata = pp.pair(*datasets.paired_cohort(seed=0))
        # importing torch is no part of training
        tl.train(pp.hold_out(mdata, pp.paired_donors(mdata)[4:])[0])
        wall, cpu = time.perf_counter(), time.process_time()
        model = tl.train(mdata)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        estimates = model.predict(mdata["bulk"]).to_numpy().tolist()
    print(json.dumps({"wall": wall, "cpu": cpu, "estimates": estimates}))


def run(source: Path) -> dict:
    """Train with the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src")}
    command = [sys.executable, "-W", "ignore", __file__, "--train"]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print seconds, ratio and difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", nargs="?")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    if arguments.train:
        train()
        return
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(old), arguments.commit], cwd=ROOT, check=True)
        try:
            pairs = [(run(old), run(ROOT)) for _ in range(REPEATS)]
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
    print(f"{datetime.date.today()}, {arguments.commit} and the working tree, {REPEATS} trainings each")
    for kind in ("wall", "cpu"):
        before, now = ([pair[side][kind] for pair in pairs] for side in (0, 1))
        ratio = np.median(before) / np.median(now)
        print(f"{kind} seconds: {np.median(before):.2f} before, {np.median(now):.2f} now, ratio {ratio:.1f}")
    difference = np.abs(np.array(pairs[0][0]["estimates"]) - np.array(pairs[0][1]["estimates"])).max()
    print(f"largest difference of a fraction: {difference:.1e}")


if __name__ == "__main__":
    main()
