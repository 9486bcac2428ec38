"""What continuous integration does before the tests: it tries to get a browser, and goes on without one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.skipif(not SCRIPT.is_file(), reason="needs a checkout (this is an unpacked archive)")
@pytest.mark.parametrize(("working", "complains"), [("update install", False), ("install", False), ("", True)])
def test_package_lists_are_fetched_before_a_browser_and_nothing_stops_the_tests(
    tmp_path: Path, working: str, complains: bool
) -> None:
    programs = {
        "id": "echo 0",
        "apt-get": f"echo apt-get $1 >&3\ncase ' {working} ' in *\" $1 \"*) ;; *) exit 100 ;; esac",
        "make": "echo make $1 >&3",
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexec 3>>{tmp_path / 'log'}\n{does}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "dirname").symlink_to(str(shutil.which("dirname")))
    words = [str(shutil.which("bash")), str(SCRIPT)]
    done = subprocess.run(words, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and ("no chromium could be installed" in done.stdout) == complains
    called = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert called == ["apt-get update", "apt-get install", "make test"]
