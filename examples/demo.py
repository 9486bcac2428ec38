"""Segment the MNI152 T1 template that nilearn carries: no download, no PyTorch.

Run by ``make demo``, or by hand: ``pip install 'spanseg[demo]'`` and ``python examples/demo.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OUT = Path("demo-out")
NOTICE = """\
The scan in this folder is the ICBM 2009a T1-weighted template, as distributed with nilearn.
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""


def write_template(folder: Path) -> Path:
    """Write the template at 1 mm, with its notice, and return its path."""
    from nilearn.datasets import load_mni152_template

    folder.mkdir(exist_ok=True)
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")
    path = folder / "mni152_T1w.nii.gz"
    load_mni152_template(resolution=1).to_filename(path)
    return path


def main() -> None:
    """Write the template, segment it and say where to look."""
    scan = write_template(OUT)
    segmenting = [sys.executable, "-m", "spanseg", "segment", str(scan), "-o", str(OUT)]
    code = subprocess.run(segmenting, check=False).returncode
    if code:
        sys.exit(code)
    report = OUT / "mni152_T1w_report.html"
    print(f"labels   {OUT / 'mni152_T1w_dseg.nii.gz'}")
    print(f"volumes  {OUT / 'mni152_T1w_volumes.tsv'}")
    print(f"report   {report.absolute().as_uri()}")


if __name__ == "__main__":
    main()
