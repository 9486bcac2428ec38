"""``spanseg sentences``: the table of sentences that networks are told, made by a language model; or one sentence."""

from pathlib import Path
from typing import Annotated

import typer


def sentences(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Table to write, as .npz.")] = None,
    encoder: Annotated[str, typer.Option(help="Language model: minilm, or biomedclip with --weights.")] = "minilm",
    weights: Annotated[Path | None, typer.Option(help="Folder of BiomedCLIP: checkpoint and vocab.txt.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what a network is told about a person instead.")] = False,
    age: Annotated[str | None, typer.Option(help="Age in years, such as 72 or 0.5 (with --show).")] = None,
    sex: Annotated[str | None, typer.Option(help="female or male (with --show).")] = None,
    diagnosis: Annotated[str | None, typer.Option(help="Such as healthy or MCI (with --show).")] = None,
) -> None:
    """Make a table of sentences, or show the sentence about a person."""
    from spanseg.errors import SpansegError

    if show == (out is not None):
        raise SpansegError("sentences takes either --out TABLE.npz, to make a table, or --show, to print a sentence.")
    if out is None:
        _show(age, sex, diagnosis)
        return
    if any((age, sex, diagnosis)):
        raise SpansegError("a table holds all ages, sexes and diagnoses; use --age, --sex and --diagnosis with --show.")
    _make(out, encoder, weights)


def _show(age: str | None, sex: str | None, diagnosis: str | None) -> None:
    from spanseg.facts import Facts, age_from_text
    from spanseg.sentences import sentences_of

    parts = sentences_of(Facts(age_years=age_from_text(age), sex=sex, diagnosis=diagnosis))
    for text, share in parts:
        print(text if len(parts) == 1 else f"{share:.0%} {text}")


def _make(out: Path, encoder: str, weights: Path | None) -> None:
    from spanseg.errors import SpansegError
    from spanseg.sentences import make_table

    if out.suffix != ".npz":
        raise SpansegError(f"{out}: a table of sentences is an .npz file; give a name that ends so.")
    if encoder not in ("minilm", "biomedclip"):
        raise SpansegError(f"there is no encoder '{encoder}'; it must be minilm or biomedclip.")
    if (encoder == "biomedclip") != (weights is not None):
        raise SpansegError("--weights FOLDER goes with --encoder biomedclip, and only with it: minilm brings its own.")
    from spanseg import text_tower

    tower = text_tower.minilm() if weights is None else text_tower.biomedclip(weights)
    table = make_table(tower.hidden_states)
    table.save(out)
    print(f"{len(table.rows)} sentences of {table.encoder} written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
