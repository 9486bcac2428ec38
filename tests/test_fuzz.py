"""A few hundred of the fuzz script's damaged files; ``benchmarks/fuzz.py`` makes 10,000 on request."""

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ), "--n", "300", "--seed", "7", "--keep", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = {
        line.split(maxsplit=1)[1]: int(line.split()[0]) for line in ran.stdout.partition("\n\n")[2].splitlines()[:-1]
    }
    assert sum(counts.values()) == 300
    assert counts["refused"] > 50 and counts["read"] > 20  # both sides of the door are tried
