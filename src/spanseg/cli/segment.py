"""``spanseg segment``: brain scans in; labels, volumes, mask and report out."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spanseg.errors import SpansegError

if TYPE_CHECKING:
    from spanseg.batch import Batch, Outcome
    from spanseg.facts import Facts
    from spanseg.inputs import Job
    from spanseg.sidecar import OutputOptions

_WHOLE_BATCH_S = 1e6
_TOLD_HELP = (
    "What to tell of age and sex; marginalise averages over eight ages and says how much the answer depends on them "
    "(where: *_desc-facts_std, with --probabilities)."
)


class Precision(StrEnum):
    """Numbers in which the network computes."""

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"


class Device(StrEnum):
    """What the network runs on."""

    CPU = "cpu"
    CUDA = "cuda"


class Form(StrEnum):
    """The two matrices of a NIfTI header."""

    SFORM = "sform"
    QFORM = "qform"


class Prompts(StrEnum):
    """What a network of slices may prompt itself with."""

    NONE = "none"
    BOX = "box"
    POINT = "point"
    ADAPTIVE = "adaptive"


class Told(StrEnum):
    """What a model is told about a person."""

    GIVEN = "given"
    UNKNOWN = "unknown"
    MARGINALISE = "marginalise"


class Only(StrEnum):
    """What may be written alone."""

    LABELS = "labels"


def segment(
    context: typer.Context,
    scans: Annotated[list[Path], typer.Argument(metavar="SCAN|FOLDER", help="NIfTI or MGH/MGZ files, or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("spanseg-out"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished scans again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the scans and stop.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write *_probseg.")] = False,
    brain: Annotated[bool, typer.Option("--brain", help="Also write the skull-stripped scan.")] = False,
    only: Annotated[Only | None, typer.Option(help="Write labels (and their sidecar) alone.")] = None,
    lesion_mask: Annotated[Path | None, typer.Option(help="Image whose voxels above 0 are lesion; one scan.")] = None,
    age: Annotated[str | None, typer.Option(help="Age in years, for models that are told it.")] = None,
    sex: Annotated[str | None, typer.Option(help="female or male, for models that are told it.")] = None,
    diagnosis: Annotated[str | None, typer.Option(help="For models that are told it, such as healthy.")] = None,
    participants: Annotated[Path | None, typer.Option(help="BIDS participants.tsv: facts of each scan.")] = None,
    told: Annotated[Told, typer.Option("--facts", help=_TOLD_HELP)] = Told.GIVEN,
    tell_diagnosis: Annotated[bool, typer.Option("--tell-diagnosis", help="Tell the diagnosis too.")] = False,
    store_facts: Annotated[bool, typer.Option("--store-facts", help="Keep age, sex, diagnosis in the files.")] = False,
    model: Annotated[str, typer.Option(help="A shipped model, a model folder, or a training run of SAM.")] = "default",
    prompts: Annotated[Prompts | None, typer.Option(help="What a run of SAM prompts itself with (else none).")] = None,
    centre: Annotated[str | None, typer.Option(help="Use this centre's adapter, made by 'spanseg adapt'.")] = None,
    adapters: Annotated[Path, typer.Option(help="Folder of adapters.")] = Path("spanseg-adapters"),
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image: slower, a bit better.")] = False,
    precision: Annotated[Precision, typer.Option(help="Numbers the network computes in.")] = Precision.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network; all cores by default.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Refuse what needs more, such as 4G or 3500M.")] = None,
    device: Annotated[Device, typer.Option(help="What the network runs on.")] = Device.CPU,
    trust: Annotated[Form | None, typer.Option(help="Matrix to trust where the two disagree on sides.")] = None,
) -> None:
    """Segment brain scans: labels, volumes, mask and report, on each scan's own grid.

    A folder's tree is kept under the output folder. From a folder: *_T1w images if there are any, else mri/T1.mgz, else
    every image that is not a label map, a mask or under derivatives. Finished scans are skipped, unless
    facts decide their labels that --store-facts did not keep.

    Exit codes: 0 all done; 1 some scans failed; 2 bad input or usage, nothing done; 130 interrupted.
    """
    facts = _facts_by_hand(age, sex, diagnosis, participants)
    machine = _machine(precision, threads, max_memory, device, trust) | _model_of(centre, model, adapters, prompts)
    outputs = _outputs(only, probabilities, brain, store_facts)
    jobs = _jobs_of(scans, out, lesion_mask)
    people = None if participants is None else _facts_of_scans(jobs, participants)
    is_batch = len(jobs) > 1 or any(scan.is_dir() for scan in scans)
    if is_batch or dry_run:
        _print_list(jobs)
    if dry_run:
        return
    from spanseg.batch import Batch
    from spanseg.segmenter import SegmentOptions

    options = SegmentOptions(
        **machine,
        facts=facts,
        facts_policy=told.value,
        tell_diagnosis=tell_diagnosis,
        lesion_mask=lesion_mask,
        probabilities=probabilities,
        flip=flip,
    )
    batch = Batch(jobs, options, outputs, overwrite, people)
    _exit_by(_run_batch(batch, out, context.obj) if is_batch else _run_one(batch, context.obj))


def _machine(
    precision: Precision, threads: int | None, max_memory: str | None, device: Device, trust: Form | None
) -> dict[str, Any]:
    """How the file is read and where the network computes, as fields of ``SegmentOptions``."""
    return {
        "precision": precision.value,
        "threads": threads,
        "max_memory_bytes": None if max_memory is None else bytes_from_text(max_memory),
        "device": device.value,
        "trust": trust and trust.value,
    }


def _model_of(centre: str | None, model: str, adapters: Path, prompts: Prompts | None) -> dict[str, Any]:
    """The model, or the adapter of a centre that stands on it, and its prompts, as fields of ``SegmentOptions``.

    A centre without an adapter is warned of at once: its name may be misspelt.
    """
    if centre is None:
        return {"model": model, "prompts": prompts and prompts.value}
    from spanseg.centres import folder_of, model_of

    chosen, note = model_of(centre, model, adapters)
    if not folder_of(centre, adapters).is_dir():
        there = ", ".join(sorted(place.parent.name for place in adapters.glob("*/model.toml"))) or "none"
        print(
            f"warning: the centre '{centre}' has no adapter in {adapters} (adapters there: {there}), so the base model "
            f"'{model}' is used.",
            file=sys.stderr,
        )
    return {"model": chosen, "prompts": prompts and prompts.value, "centre_note": note}


def _outputs(only: Only | None, probabilities: bool, brain: bool, store_facts: bool) -> OutputOptions:
    from spanseg.sidecar import OutputOptions

    if only and (probabilities or brain):
        raise SpansegError("--only labels leaves out what --probabilities and --brain add; give one or the other.")
    return OutputOptions(brain, only is not None, store_facts)


def _jobs_of(scans: list[Path], out: Path, lesion_mask: Path | None) -> list[Job]:
    from spanseg.files import require_folder
    from spanseg.inputs import find_jobs, other_contrasts

    require_folder(out)
    jobs = find_jobs(scans, out)
    others = other_contrasts(scans, out)
    if others:
        print(
            f"note: from folders with *_T1w images only these are taken; {len(others)} others are left out, such as "
            f"{others[0]}; give them by name to segment them.",
            file=sys.stderr,
        )
    if lesion_mask and len(jobs) > 1:
        raise SpansegError(f"--lesion-mask belongs to one scan, and these are {len(jobs)}; give both alone.")
    return jobs


def _facts_by_hand(age: str | None, sex: str | None, diagnosis: str | None, participants: Path | None) -> Facts:
    from spanseg.facts import Facts, age_from_text

    by_hand = {"--age": age, "--sex": sex, "--diagnosis": diagnosis}
    given = " and ".join(name for name, value in by_hand.items() if value is not None)
    if participants is not None and given:
        raise SpansegError(f"--participants takes the facts from its table, so {given} cannot be given too; drop one.")
    return Facts(age_from_text(age), sex, diagnosis)


def _facts_of_scans(jobs: list[Job], participants: Path) -> dict[Path, Facts]:
    from spanseg.participants import facts_of, participant_of, read_participants

    table = read_participants(participants)
    return {job.path: facts_of(table, participant_of(job.path), participants) for job in jobs}


def _exit_by(outcomes: list[Outcome]) -> None:
    """Leave with the code that tells whether some or all scans failed."""
    errors = [outcome.error for outcome in outcomes if outcome.state == "failed"]
    if errors:
        ours = all(isinstance(error, SpansegError | OSError) for error in errors)
        raise typer.Exit(2 if ours and len(errors) == len(outcomes) else 1)


def bytes_from_text(text: str) -> int:
    """Read an amount of memory as people type it: ``4G``, ``3500M``, ``4GiB``, or bytes.

    Raises:
        SpansegError: it is not an amount.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise SpansegError(f"--max-memory takes an amount such as 4G or 3500M, not '{text}'.")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


def _print_list(jobs: list[Job]) -> None:
    for job in jobs:
        print(f"{job.path} -> {job.folder / job.stem}_*")
    print(f"{len(jobs)} {'scan' if len(jobs) == 1 else 'scans'}")


def _run_one(batch: Batch, debug: bool) -> list[Outcome]:
    """Do one scan and say so in one line."""
    outcomes = list(batch.run(_say_waiting))
    for outcome in outcomes:
        _say(outcome, debug)
    return outcomes


def _run_batch(batch: Batch, out: Path, debug: bool) -> list[Outcome]:
    """Do several scans under a progress bar, then write their table."""
    from spanseg.batch_table import NAME, write_batch_table

    outcomes = []
    for outcome in _with_progress(batch):
        outcomes.append(outcome)
        if outcome.state != "skipped":
            _say(outcome, debug)
    states = [outcome.state for outcome in outcomes]
    print(f"{states.count('done')} done, {states.count('skipped')} finished before, {states.count('failed')} failed")
    try:
        if write_batch_table(out):
            print(f"volumes of all scans: {out / NAME}")
    except SpansegError as error:
        if "done" not in states:
            raise
        print(f"spanseg: {error}", file=sys.stderr)  # the results are there: not what code 2 says
        raise typer.Exit(1) from error
    return outcomes


def _with_progress(batch: Batch) -> Iterator[Outcome]:
    """Yield outcomes while a bar on a terminal shows the time left; scans finished before do not count."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else what goes to a file would go to the terminal
        speed_estimate_period=_WHOLE_BATCH_S,
    )
    with bar:
        total = len(batch.jobs)
        task = bar.add_task("scans", total=total)
        bar.advance(task, 0)  # the clock of the time left starts here, not with the first scan that is done
        for outcome in batch.run(_say_waiting):
            if outcome.state == "skipped":
                total -= 1
                bar.update(task, total=total)
            else:
                bar.advance(task)
            yield outcome


def _say(outcome: Outcome, debug: bool) -> None:
    """Print what became of a scan: results to standard output; notes, doubts and failures to standard error."""
    job = outcome.job
    if outcome.state == "failed":
        if debug and outcome.error is not None:
            traceback.print_exception(outcome.error)
        print(f"spanseg: {outcome.messages[0]}", file=sys.stderr)
        return
    verb = "finished before" if outcome.state == "skipped" else f"done in {outcome.seconds:.1f} s"
    print(f"{job.stem}: {verb}, {job.folder / job.stem}_*")
    for note in outcome.notes:
        print(f"{job.stem}: note: {note}", file=sys.stderr)
    for message in outcome.messages:
        print(f"{job.stem}: warning: {message}", file=sys.stderr)


def _say_waiting(job: Job) -> None:
    print(f"{job.stem}: another process is at this scan; waiting for it", file=sys.stderr)
