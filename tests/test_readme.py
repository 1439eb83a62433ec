"""The README does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_five_lines_run_without_a_deprecation(tmp_path):
    code = re.search(r"## Five lines\n\n```python\n(.*?)```", README.read_text(), flags=re.DOTALL).group(1)
    strict = ("-W", "error::FutureWarning", "-W", "error::DeprecationWarning")
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    run = subprocess.run(
        [sys.executable, *strict, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    paired, trained = run.stdout.splitlines()
    assert paired.startswith("paired 24 donors")
    assert trained.startswith("simplednn: 24 donors")
