"""Real scans, mixtures and batches: what a truth does not label, and what a network is told, stays with its subject."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import tiny
from spanseg import sampling
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.interfaces import Sample, Told
from spanseg.labelled import RealOptions, labelled_scans, pair_scans, read_labelled
from spanseg.labels import UNKNOWN, load_protocol
from spanseg.rebalance import BIAS, rebalanced
from spanseg.sampling import LabelledScan, Mixture, RealScans, batch_of, stack_told
from spanseg.synth import SynthOptions, normalise
from spanseg.train import score_sample

ASEG = load_protocol("aseg")
CANVAS = Canvas((24, 28, 24), 8.0)
STILL = SynthOptions(rotation=0, scaling=0, shear=0, shift_mm=0, elastic_mm=0, thick=0, ghost=0, noise=0, bias=0)


def scan(name: str, unlabelled: tuple[int, ...] = ()) -> LabelledScan:
    """The tiny head with its ids as intensities."""
    labels = tiny.label_map()
    classes = ASEG.crosswalk("synthseg").apply(labels, name)
    return LabelledScan(name, labels.astype(np.float32), classes, np.full(3, 4.0), unlabelled)


def told(words: int, centre: int, value: float = 1.0) -> Told:
    return Told(torch.full((1, words, 4), value), torch.ones(1, words, dtype=torch.bool), torch.tensor([centre]))


def sample(words: int | None = None, unlabelled: tuple[int, ...] = ()) -> Sample:
    image, target = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    return Sample(image, target, None if words is None else told(words, words), unlabelled)


def test_seed_and_index_decide_the_draw() -> None:
    source = RealScans([scan("a"), scan("b")], ASEG, CANVAS, SynthOptions())
    first, again, other = source.draw(0, 3), source.draw(0, 3), source.draw(0, 4)
    assert torch.equal(first.image, again.image) and torch.equal(first.target, again.target)
    assert not torch.equal(first.image, other.image)


def test_scans_are_looked_at_as_they_are() -> None:
    """On a canvas of the scan's own voxels round the middle of its brain, every draw is the scan."""
    labels = scan("a")
    inside = np.argwhere(labels.classes > 0)
    middle = (inside.min(0) + inside.max(0)) // 2
    classes = np.full_like(labels.classes, UNKNOWN)  # one voxel counts, and so lies in the middle of the canvas
    classes[tuple(middle)] = ASEG.class_of(10)
    seen = np.random.default_rng(0).random(labels.image.shape).astype(np.float32)
    near = tuple(slice(int(one) - 8, int(one) + 9) for one in middle)
    one = LabelledScan("a", seen, classes, labels.voxel_mm)
    source = RealScans([one], ASEG, Canvas((17, 17, 17), 4.0), sampling.STILL)
    as_it_is = normalise(source.scans[0][0][near])
    for index in range(6):
        drawn = source.draw(0, index)
        assert torch.allclose(drawn.image[0, 0], as_it_is, atol=1e-4)
        assert torch.equal(drawn.target[0], torch.from_numpy(classes[near]).long())


def test_unlabelled_classes_follow_their_scan_and_its_side() -> None:
    """The left hippocampus is not labelled: in a flipped draw it is the right one."""
    left, right = ASEG.class_of(17), ASEG.class_of(53)
    labels = scan("a")
    classes = np.where(labels.classes == left, 0, labels.classes)
    source = RealScans([LabelledScan("a", labels.image, classes, labels.voxel_mm, (left,))], ASEG, CANVAS, STILL)
    seen = set()
    for index in range(8):
        drawn = source.draw(0, index)
        (missing,) = drawn.unlabelled
        assert not (drawn.target == missing).any()
        assert (drawn.target == (right if missing == left else left)).any()
        seen.add(missing)
    assert seen == {left, right}


def test_unknown_voxels_stay_unknown_when_sides_are_exchanged() -> None:
    labels = scan("a")
    classes = np.where(labels.classes == ASEG.class_of(16), UNKNOWN, labels.classes)
    source = RealScans([LabelledScan("a", labels.image, classes, labels.voxel_mm)], ASEG, CANVAS, STILL)
    shares = {float((source.draw(0, index).target == UNKNOWN).float().mean()) for index in range(6)}
    assert min(shares) > 0 and max(shares) < 2 * min(shares)


def test_reading_keeps_what_a_scheme_leaves_out(tmp_path: Path) -> None:
    anat, truth = tmp_path / "sub-01", tmp_path / "derivatives" / "sub-01"
    for folder in (anat, truth):
        folder.mkdir(parents=True)
    labels = tiny.label_map()
    brain = np.where((labels < 500) & (labels != 24), labels, 0).astype(np.int16)
    nib.save(nib.Nifti1Image(brain, np.diag([4.0, 4, 4, 1])), truth / "sub-01_dseg.nii.gz")
    nib.save(nib.Nifti1Image(brain.astype(np.float32), np.diag([4.0, 4, 4, 1])), anat / "sub-01_T1w.nii.gz")
    options = RealOptions(str(tmp_path), str(truth.parent), "freesurfer", 1.0)
    (loaded,) = labelled_scans(options, ASEG)
    assert loaded.unlabelled == (ASEG.class_of(24),), "sulcal CSF"
    drawn = Mixture([RealScans([loaded], ASEG, CANVAS, STILL)], [1.0]).draw(0, 0)
    assert drawn.unlabelled == loaded.unlabelled


@pytest.mark.parametrize(
    ("scans", "truths", "named"),
    [
        (("s1/T1", "s2/T1"), ("s1/T1_seg", "s2/T1_seg"), ("s1/T1", "s2/T1")),
        (("sub-1_T1w",), ("sub-1_desc-a_dseg", "sub-1_desc-b_dseg"), ("sub-1_desc-a_dseg", "sub-1_desc-b_dseg")),
    ],
)
def test_two_scans_or_two_label_images_for_one_pair_are_refused(
    tmp_path: Path, scans: tuple[str, ...], truths: tuple[str, ...], named: tuple[str, str]
) -> None:
    for folder, names in (("in", scans), ("true", truths)):
        for name in names:
            path = tmp_path / folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with pytest.raises(SpansegError, match="both are of the same person") as caught:
        pair_scans(tmp_path / "in", tmp_path / "true")
    assert all(f"{name}.nii.gz" in str(caught.value) for name in named)


def test_scans_that_nobody_labelled_may_share_a_name(tmp_path: Path) -> None:
    for name in ("in/a/T1", "in/b/T1", "in/sub-2_T1", "true/sub-2_dseg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    ((scan, truth),) = pair_scans(tmp_path / "in", tmp_path / "true")
    assert (scan.name, truth.name) == ("sub-2_T1.nii.gz", "sub-2_dseg.nii.gz")


def write_pair(folder: Path, labels: np.ndarray, edge_mm: float = 4.0) -> tuple[Path, Path]:
    """A tiny head and a label image, whose voxels have edges of that length."""
    scan, truth = folder / "sub-01_T1w.nii.gz", folder / "sub-01_dseg.nii.gz"
    nib.save(nib.Nifti1Image(tiny.label_map().astype(np.float32), np.diag([4.0, 4, 4, 1])), scan)
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.diag([edge_mm, edge_mm, edge_mm, 1])), truth)
    return scan, truth


def test_labels_with_slightly_other_voxels_are_refused(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, tiny.label_map(), 4.009)  # 0.8 mm at the farthest corner
    with pytest.raises(SpansegError, match=r"sub-01_dseg.nii.gz: these labels are not on the grid"):
        read_labelled([pair], "synthseg", ASEG)


def test_labels_without_a_known_structure_are_refused_by_name(tmp_path: Path) -> None:
    """Their middle would be no number, and all of the scan background."""
    pair = write_pair(tmp_path, np.zeros(tiny.SHAPE))
    with pytest.raises(SpansegError, match=r"sub-01_dseg.nii.gz: by the scheme 'synthseg' these labels hold no struc"):
        read_labelled([pair], "synthseg", ASEG)


def test_a_batch_keeps_subjects_in_order() -> None:
    batch = batch_of([sample(unlabelled=(3,)), sample(), sample(unlabelled=(1, 2))], 5)
    assert batch.unlabelled == ((3,), (), (1, 2))
    assert batch.image.shape == (3, 1, 2, 2, 2) and batch.target.shape == (3, 2, 2, 2)
    assert (batch.told, batch.index) == (None, 5)
    assert batch_of([sample(), sample()], 0).unlabelled == ()


def test_sentences_of_unequal_length_are_padded_and_masked() -> None:
    both = stack_told([told(2, 7, 3.0), told(4, -1)])
    assert both.embedding.shape == (2, 4, 4)
    assert both.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert (both.embedding[0, :2] == 3).all() and (both.embedding[0, 2:] == 0).all()
    assert both.centre.tolist() == [7, -1]
    assert batch_of([sample(2), sample(4)], 0).told.mask.shape == (2, 4)


def test_a_batch_in_which_only_some_are_told_something_is_refused() -> None:
    with pytest.raises(SpansegError, match="all or none"):
        batch_of([sample(2), sample()], 0)


def test_an_unlabelled_class_is_not_scored_and_its_predictions_are_no_mistakes() -> None:
    target = torch.tensor([0, 0, 1, 1, UNKNOWN, 2]).reshape(1, 6, 1, 1)
    predicted = torch.tensor([3, 0, 1, 1, 3, 2]).reshape(1, 6, 1, 1)
    labelled = Sample(target, target)
    assert score_sample(predicted, labelled, 4).tolist()[1:] == [1, 1, 0]
    dice = score_sample(predicted, labelled._replace(unlabelled=(3,)), 4)
    assert dice[:3].tolist() == [1, 1, 1] and dice[3].isnan()


class _Draws:
    """Noisy intensities of three classes, the last of which the truth leaves out; some voxels are unknown."""

    def draw(self, seed: int, index: int) -> Sample:
        generator = torch.Generator().manual_seed(seed + index)
        u = torch.rand((1, 16, 16, 16), generator=generator)
        truth = (u > 0.9).long() + (u > 0.95).long()
        image = truth + 0.3 * torch.randn(truth.shape, generator=generator)
        target = torch.where(truth == 2, 0, truth)
        target[:, :2] = UNKNOWN
        return Sample(image[None], target, unlabelled=(2,))


def test_the_bias_of_a_class_without_truth_is_left_alone() -> None:
    network = torch.nn.Module()
    network.classify = torch.nn.Conv3d(1, 3, 1)
    network.forward = lambda image: network.classify(image)  # type: ignore[method-assign]
    weights = {"classify.weight": torch.tensor([0.0, 4, 8]).reshape(3, 1, 1, 1, 1), BIAS: torch.tensor([0.0, -2, -8])}
    moved = rebalanced(network, weights, _Draws())[BIAS] - weights[BIAS]
    assert moved[0] == 0 and moved[2] == 0 and moved.isfinite().all()
