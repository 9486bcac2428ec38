"""``spanseg adapt``: fit a model to a centre with a few labelled scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spanseg.adaptation import Plan


def adapt(
    to: Annotated[Path, typer.Option("--to", help="BIDS folder with scans, and label images below derivatives.")],
    start: Annotated[str, typer.Option("--from", help="Model to start from: a shipped name or a folder.")] = "default",
    truth: Annotated[Path | None, typer.Option(help="Folder of the label images; default TO/derivatives.")] = None,
    labels: Annotated[str | None, typer.Option(help="Scheme of the labels: a shipped one or a table.")] = None,
    centre: Annotated[str, typer.Option(help="Name of the centre, for 'segment --centre'; default: TO's name.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default spanseg-adapters/CENTRE.")] = None,
    subjects: Annotated[str, typer.Option(help="Train on these people, comma-separated; the others test.")] = "",
    old: Annotated[list[Path] | None, typer.Option(help="BIDS folder of an old centre, to see what is lost.")] = None,
    old_labels: Annotated[str | None, typer.Option(help="Scheme of the old centres' labels.")] = None,
    how: Annotated[str, typer.Option(help="tokens_and_head, decoder, lora or full; chosen by default.")] = "",
    replay: Annotated[Path | None, typer.Option(help="Label maps to draw synthetic scans from.")] = None,
    replay_share: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of synthetic scans.")] = 0.4,
    budget: Annotated[float, typer.Option(min=0.1, help="Minutes that the training may take.")] = 45.0,
    steps: Annotated[int, typer.Option(min=10, help="Steps at most.")] = 240,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    keep_unlabelled: Annotated[
        bool, typer.Option(help="Structures that the labels leave out keep the voxels that the base model gives them.")
    ] = True,
) -> None:
    """Audit the scans, train, export, and print before and after on the people that were not trained on."""
    from spanseg import centres
    from spanseg.adaptation import AdaptOptions, adapt, exported, split_people

    options = AdaptOptions(
        start, labels, how, replay, replay_share, budget * 60, steps, seed=seed, keep_unlabelled=keep_unlabelled
    )
    name = centre or to.resolve().name
    folder = out or centres.folder_of(name)
    pairs = _audited(to, truth or to / "derivatives", start, labels)
    earlier = [(dataset, _audited(dataset, dataset / "derivatives", start, old_labels)) for dataset in old or []]
    named = [subject.strip() for subject in subjects.split(",") if subject.strip()]
    train, test = split_people(pairs, named)
    print(f"{len(train)} scans to train on, {len(test)} to test on")
    adapt(train, folder, options, _tell, _report, [*test, *(pair for _, there in earlier for pair in there)])
    exported(folder, name, options, train[0][0])
    _compare(test, start, folder, labels, "new centre", folder / "before_after.tsv")
    for number, (dataset, there) in enumerate(earlier):
        _compare(there, start, folder, old_labels, f"old centre {dataset.name}", folder / f"old_{number}.tsv")
    print(f"use it: spanseg segment SCAN --centre {name}" + (f" --adapters {folder.parent}" if out else ""))


def _audited(data: Path, truth: Path, start: str, labels: str | None) -> list[tuple[Path, Path]]:
    """Pairs of scans and label images that may be trained on."""
    from spanseg.dataset_audit import audit_dataset
    from spanseg.labelled import left_out_of_pairs, pair_scans
    from spanseg.labels import load_protocol
    from spanseg.runtime import open_model

    pairs = pair_scans(data, truth)
    found = audit_dataset(pairs, load_protocol(open_model(start).protocol), labels).notes
    for note in [*left_out_of_pairs(data, truth), *found]:
        print(f"note: {note}")
    return pairs


def _tell(plan: Plan) -> None:
    minutes = plan.step_s * plan.steps / 60
    print(f"{plan.adaptation} ({plan.reason}): {plan.trained:,} of {plan.total:,} parameters may change")
    print(f"one step takes {plan.step_s:.1f} s: {plan.steps} steps, about {minutes:.0f} minutes", flush=True)


def _report(row: dict[str, float]) -> None:
    if row["step"] % 20 == 0:
        print(f"step {row['step']:.0f}  loss {row['loss']:.3f}", flush=True)


def _compare(
    pairs: list[tuple[Path, Path]], start: str, folder: Path, labels: str | None, title: str, to: Path
) -> None:
    """Print and write Dice before and after on people that were not trained on."""
    from spanseg import files
    from spanseg.judging import changes, changes_table, changes_text, judge
    from spanseg.runtime import open_model
    from spanseg.segmenter import SegmentOptions
    from spanseg.sentences import with_reader

    if not pairs:
        print(f"{title}: nobody is left to test on; give --subjects to say whom to train on")
        return
    before, protocol = judge(pairs, labels, SegmentOptions(model=start))
    after, _ = judge(pairs, labels, SegmentOptions(model=str(folder)))
    rows = changes(before, after, protocol)
    for model in (start, str(folder)):
        title = with_reader(title, open_model(model).title)
    print(f"\n{title}, {len(pairs)} scans\n{changes_text(rows)}\n", flush=True)
    files.write_text(to, "".join("\t".join(row) + "\n" for row in changes_table(rows)))
