"""``spanseg serve``: a page on this computer that corrects segmentations with clicks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from spanseg.correcting import Corrects
    from spanseg.labels import Protocol
    from spanseg.serve.desk import Desk
    from spanseg.volume import Volume


def serve(
    source: Annotated[Path, typer.Argument(metavar="SCAN|FOLDER", help="A scan, or a folder of scans.")],
    labels: Annotated[Path | None, typer.Option(help="Labels to begin with; default: the default model's.")] = None,
    scheme: Annotated[str | None, typer.Option(help="Scheme of these labels: a shipped one or a table.")] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Begin without labels.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what is saved.")] = Path("spanseg-corrected"),
    model: Annotated[str, typer.Option(help="'click', a model folder, or a training run of SAM.")] = "click",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of this computer; 0 for a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Go on from before a damaged line of a log.")] = False,
) -> None:
    """Open a page on this computer that shows scans with their labels and corrects them with clicks.

    Nobody else can reach it: it listens to this computer only, and its address holds a random token. Every click is on
    the disk before it is answered; the same command goes on where it stopped. Ctrl-C ends it.

    Exit codes: 0 ended by Ctrl-C; 2 bad input or usage, nothing done.
    """
    from spanseg.beginnings import Beginning, labels_from
    from spanseg.beliefs import ModelBelief
    from spanseg.cases import find_cases
    from spanseg.images import read_scan
    from spanseg.labels import load_protocol
    from spanseg.runtime import open_model
    from spanseg.serve.desk import Desk, Means

    protocol, cases = load_protocol(open_model("default").protocol), find_cases(source, out, labels)
    beginning = Beginning(labels, scheme, empty)
    if len(cases) == 1:  # better refused here than on the page
        scan = read_scan(cases[0].scan)
        if labels is not None:
            labels_from(labels, scheme, scan, protocol)
    desk = Desk(cases, out, Means(protocol, ModelBelief(), _answering(model, protocol), beginning, restore))
    _run(desk, port, browser=not no_browser)
    print(f"\nended; sessions and what was saved lie in {out}" if out.is_dir() else "\nended; nothing was saved")


def _answering(model: str, protocol: Protocol) -> Callable[[Volume, Protocol], Corrects]:
    """What answers prompts: an exported click network, or a training run of SAM, which needs PyTorch.

    Raises:
        SpansegError: the model does not answer prompts, or cannot be loaded.
    """
    import numpy as np

    from spanseg.runtime import is_run
    from spanseg.volume import Volume

    made: Callable[[Volume, Protocol], Corrects]
    if is_run(model):
        from spanseg.correcting_sam import SamCorrector

        made = partial(SamCorrector.of_run, run=Path(model))
    else:
        from spanseg.correcting import Corrector

        made = partial(Corrector, model=model)
    made(Volume(np.zeros((2, 2, 2), np.float32), np.eye(4)), protocol)  # better refused here than on the page
    return made


def _run(desk: Desk, port: int, browser: bool) -> None:
    """Print the address, open it, and serve until Ctrl-C."""
    import secrets
    import webbrowser

    from spanseg.serve.application import application
    from spanseg.serve.running import HOST, listen, run

    listener, token = listen(port), secrets.token_urlsafe(32)
    number = listener.getsockname()[1]
    address = f"http://{HOST}:{number}/?token={token}"
    print(f"the page: {address}\nkeep this address to yourself; Ctrl-C ends", flush=True)
    if browser:
        webbrowser.open(address)
    try:
        run(application(desk, token, number), listener)
    finally:
        desk.close()
