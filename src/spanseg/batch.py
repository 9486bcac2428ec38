"""Many scans, one after the other: finished ones are skipped, failing ones stop nothing, any process may be killed.

A scan counts as finished when its sidecar, which is written last, agrees with the scan's hash and with the settings.
The files of a scan are made in a temporary folder beside their place and moved there whole. A claim file tells other
processes on the same output folder to leave the scan alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spanseg import files, quality, segmenter, sidecar
from spanseg.claims import drop_abandoned_claim, take_claim
from spanseg.errors import SpansegError
from spanseg.flags import with_flags
from spanseg.images import read_scan
from spanseg.inputs import Job
from spanseg.outputs import write_result
from spanseg.sidecar import OutputOptions

if TYPE_CHECKING:
    from spanseg.facts import Facts
    from spanseg.result import Segmentation
    from spanseg.segmenter import Predictor, SegmentOptions

POLL_S = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Args:
        job: the scan.
        state: ``done`` now, ``skipped`` because it was finished, or ``failed``.
        messages: what asks for a second look at a scan that was done, or the reason why it failed.
        seconds: time it took.
        error: what was raised, for a failed scan.
        notes: what was guessed, repaired or left out in a scan that was done.
    """

    job: Job
    state: Literal["done", "skipped", "failed"]
    messages: tuple[str, ...] = ()
    seconds: float = 0.0
    error: Exception | None = None
    notes: tuple[str, ...] = ()


class Batch:
    """A list of scans and how to do them.

    Args:
        jobs: the scans.
        options: how they are segmented.
        outputs: which files are written.
        overwrite: do finished scans again.
        facts: what is known about the person of each scan, by its path; the options' facts for scans not in it.

    Raises:
        SpansegError: the model cannot be loaded, or the lesion mask cannot be read.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        options: SegmentOptions,
        outputs: OutputOptions,
        overwrite: bool = False,
        facts: Mapping[Path, Facts] | None = None,
    ) -> None:
        self.jobs, self.options, self.outputs, self.overwrite = list(jobs), options, outputs, overwrite
        self.facts = facts or {}
        self.predictor: Predictor = segmenter.load_model(options)
        self.settings = sidecar.settings_of(self.predictor.identity, options, outputs)
        self.quality = quality.load(self.predictor.folder.path, self.predictor.identity["model_sha256"])

    def run(self, waiting: Callable[[Job], None] = lambda job: None) -> Iterator[Outcome]:
        """Do the scans; yields each as soon as its fate is known, finished ones first.

        Args:
            waiting: called once for each scan that another process is at, before waiting for it.
        """
        for folder in sorted({job.folder for job in self.jobs}):
            files.remove_dead_temporaries(folder)
        unfinished = []
        for job in self.jobs:
            if not self.overwrite and self._is_finished(job):
                drop_abandoned_claim(_claim(job))  # its process was killed between the last file and this
                yield Outcome(job, "skipped")
            else:
                unfinished.append(job)
        elsewhere = []
        for job in unfinished:
            outcome = self._attempt(job, again=self.overwrite)
            if outcome is None:
                elsewhere.append(job)
            else:
                yield outcome
        for job in elsewhere:
            waiting(job)
            yield self._wait_for(job)

    def _wait_for(self, job: Job) -> Outcome:
        """Wait until another process has done a scan; do it here if that process dies or fails."""
        while True:
            outcome = self._attempt(job, again=False)
            if outcome is not None:
                return outcome
            time.sleep(POLL_S)

    def _attempt(self, job: Job, again: bool) -> Outcome | None:
        """Do one scan; ``None`` while another process is at it."""
        started = time.perf_counter()
        try:
            with _claimed(job) as free:
                if not free:
                    return None
                if not again and self._is_finished(job):
                    return Outcome(job, "skipped")
                if not self.overwrite:
                    _require_no_other_scan(job)
                replaced = self._replaced(job)
                result = self._do(job)
        except Exception as error:
            return Outcome(job, "failed", (_reason(job, error),), time.perf_counter() - started, error)
        seconds = time.perf_counter() - started
        return Outcome(job, "done", tuple(result.details["quality_flags"]), seconds, notes=(*result.notes, *replaced))

    def _is_finished(self, job: Job) -> bool:
        """Whether a scan's sidecar is there and agrees, and so are the files that it lists."""
        record = sidecar.read_if_any(job.sidecar)
        if record is None or record["settings_sha256"] != sidecar.settings_sha256(self._settings_of(job)):
            return False
        if self._tells_what_is_not_stored(job):
            return False
        try:
            if not all((job.folder / name).is_file() for name in record["outputs"]):
                return False
            return record["input_sha256"] == files.file_sha256(job.path)
        except (SpansegError, OSError):
            return False

    def _replaced(self, job: Job) -> tuple[str, ...]:
        """What to say of earlier results of this scan that were made with other settings."""
        earlier, now = sidecar.read_if_any(job.sidecar), self._settings_of(job)
        differ = [] if earlier is None else [key for key in now if earlier["settings"].get(key) != now[key]]
        if not differ:
            return ()
        return (f"Earlier results of other settings ({', '.join(differ)}) were replaced; to keep both, choose -o.",)

    def _options_of(self, job: Job) -> SegmentOptions:
        """The options with the facts about the person of this scan."""
        return replace(self.options, facts=self.facts.get(job.path, self.options.facts))

    def _settings_of(self, job: Job) -> dict[str, Any]:
        facts = self._options_of(job).facts
        return self.settings | {"facts": sidecar.facts_record(facts, self.outputs.store_facts)}

    def _tells_what_is_not_stored(self, job: Job) -> bool:
        """Whether facts decide the labels that the sidecar does not hold: two ages of a decade look the same in it."""
        options = self._options_of(job)
        is_told = bool(self.predictor.folder.told_in_all) and options.facts_policy == "given"
        return is_told and bool(options.facts.known) and not self.outputs.store_facts

    def _do(self, job: Job) -> Segmentation:
        """Segment one scan, write its files, and return the result."""
        clock = [time.perf_counter()]
        scan = read_scan(job.path, self.options.trust, self.options.max_memory_bytes)
        clock.append(time.perf_counter())
        result = segmenter.segment_scan(scan, self.predictor, self._options_of(job))
        clock.append(time.perf_counter())
        result = with_flags(scan, quality.with_quality(scan, result, self.quality))
        with _staging(job.folder) as temporary:
            written = write_result(temporary, job.stem, scan, result, self.outputs)
            seconds = {"read": clock[1] - clock[0], "write": time.perf_counter() - clock[2]}
            place = {"model_folder": self.predictor.folder.path.resolve().name}  # its own name: paths are personal
            timed = replace(result, details=_with_timings(result.details, seconds) | place)
            record = sidecar.build(scan, timed, self._settings_of(job), written)
            files.write_text(temporary / job.sidecar.name, sidecar.dumps(record))
            _put_in_place(temporary, job, written)
        return result


def _claim(job: Job) -> Path:
    return job.folder / f".{job.stem}.claim"


@contextmanager
def _claimed(job: Job) -> Iterator[bool]:
    """Hold the claim on a scan while it is worked on; false when another process holds it.

    Folders that were made for it and stayed empty are removed.
    """
    claim = _claim(job)
    made = [place for place in (job.folder, *job.folder.parents) if not place.exists()]
    if not take_claim(claim):
        yield False
        return
    try:
        yield True
    finally:
        claim.unlink(missing_ok=True)
        with suppress(OSError):  # the first one that holds something ends it
            for place in made:
                place.rmdir()


def _require_no_other_scan(job: Job) -> None:
    """Refuse to replace the result of another scan that has the same name."""
    record = sidecar.read_if_any(job.sidecar)
    if record is None:
        return
    before, now = record["input_sha256"], files.file_sha256(job.path)
    if before != now:
        raise SpansegError(
            f"{job.sidecar} is the result of another scan (sha256 {before[:12]}) than {job.path} (sha256 {now[:12]}): "
            "nothing was replaced; choose another folder with -o, or replace it with --overwrite."
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Lend a temporary folder beside the results; messages about it name the folder that the user knows."""
    temporary = files.temporary_for(folder / "result")
    try:
        temporary.mkdir()
        yield temporary
    except SpansegError as error:
        raise SpansegError(str(error).replace(str(temporary), str(folder))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, job: Job, written: list[str]) -> None:
    """Move finished files to their names, the sidecar last; until then the scan does not count as finished."""
    earlier = sidecar.read_if_any(job.sidecar) or {}
    job.sidecar.unlink(missing_ok=True)
    for name in set(earlier.get("outputs", [])) - set(written):
        if name == Path(name).name and name.startswith(f"{job.stem}_"):  # the list may have been edited by hand
            (job.folder / name).unlink(missing_ok=True)
    for name in [*written, job.sidecar.name]:
        files.replace(temporary / name, job.folder / name)


def _with_timings(details: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    return details | {"timings_s": {"read": rounded["read"], **details.get("timings_s", {}), "write": rounded["write"]}}


def _reason(job: Job, error: Exception) -> str:
    """One sentence for the user."""
    if isinstance(error, SpansegError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{job.path}: there was not enough memory for this scan; close other programs or take a larger machine."
    if isinstance(error, OSError):
        return f"{error.filename2 or job.folder}: the results could not be written ({error.strerror or error})."
    return (
        f"{job.path}: spanseg stopped on an error of its own ({type(error).__name__}: {error}); "
        "please report it with the output of --debug."
    )
