"""Reading scans: the corpus of wrong files, exact round trips, and what a second library makes of the results."""

import gzip
import hashlib
import itertools
import os
import re
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corpus
from spanseg.errors import SpansegError
from spanseg.headers import GRID_FIELDS
from spanseg.images import is_nifti_or_mgh, read_labels, read_scan, scan_of, write_image, write_labels
from spanseg.volume import Volume


def orientations() -> list[np.ndarray]:
    """The 48 ways to lay a grid along the world's axes, here turned by a little as scanners do, as affines."""
    angle = 0.1
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affines = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((-3.0, 3.0), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = tilt @ (np.eye(3)[:, axes] * signs)
            affine[:3, 3] = (12.3, -45.6, 7.8)
            affines.append(affine)
    return affines


def is_one_sentence(text: str, path: Path) -> bool:
    """Whether a message is one line with one full stop, at its end."""
    said = text.replace(str(path), "FILE")
    return "\n" not in said and not re.search(r"[.!?] [A-Z]", said)


@pytest.mark.parametrize("case", corpus.CORPUS, ids=lambda case: case.name)
def test_corpus(case: corpus.Wrong, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    if case.refused is not None:
        with pytest.raises(SpansegError) as refusal:
            read_scan(path, case.trust)
        assert case.refused in str(refusal.value)
        assert str(path) in str(refusal.value) and is_one_sentence(str(refusal.value), path)
        return
    scan = read_scan(path, case.trust)
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.isfinite(scan.volume.data).all() and scan.volume.data.dtype == np.float32
    for words, said in ((case.noted, scan.notes), (case.warned, scan.warnings)):
        if words is None and said is scan.warnings:
            assert not any(corpus.SIDES in sentence for sentence in said)
        assert words is None or any(words in sentence for sentence in said), said
    assert all(is_one_sentence(said, path) and "scan.nii" not in said for said in (*scan.notes, *scan.warnings))
    if case.noted is None and case.warned is None:
        assert not scan.notes
    result = tmp_path / "out" / "labels.nii.gz"
    write_labels(result, (scan.volume.data > 50).astype(np.int32), scan)
    again = read_labels(result)
    np.testing.assert_array_equal(again.volume.affine, scan.volume.affine)
    np.testing.assert_array_equal(again.volume.data, scan.volume.data > 50)
    assert nibabel.load(result).shape == scan.volume.shape


def test_plain_scan_is_read_as_nibabel_reads_it(tmp_path: Path) -> None:
    data = corpus.head(np.int16)
    path = corpus.fields(scl_slope=0.25, scl_inter=-3)(tmp_path)
    scan = read_scan(path)
    reference = nibabel.load(path)
    np.testing.assert_array_equal(scan.volume.data, np.asarray(reference.dataobj, dtype=np.float32))
    np.testing.assert_array_equal(scan.volume.data, data * np.float32(0.25) - 3)
    np.testing.assert_array_equal(scan.volume.affine, reference.affine)
    assert scan.notes == () and scan.warnings == ()


KINDS_AND_FORMS = [
    *itertools.product((nibabel.Nifti1Image, nibabel.Nifti2Image), ("both", "sform", "qform")),
    (nibabel.MGHImage, "both"),
]


@pytest.mark.parametrize(("kind", "form"), KINDS_AND_FORMS)
def test_orientations_round_trip(kind: type, form: str, tmp_path: Path) -> None:
    for number, affine in enumerate(orientations()):
        image = kind(corpus.head(np.uint8, (24, 30, 26)), affine)
        if kind is not nibabel.MGHImage:
            image.set_sform(affine, 0 if form == "qform" else 4)
            image.set_qform(affine, 0 if form == "sform" else 1)
        path = tmp_path / f"{number}{'.mgz' if kind is nibabel.MGHImage else '.nii'}"
        nibabel.save(image, path)
        scan = read_scan(path)
        write_labels(tmp_path / "labels.nii.gz", scan.volume.data.astype(np.uint8), scan)
        given, written = nibabel.load(path), nibabel.load(tmp_path / "labels.nii.gz")
        np.testing.assert_array_equal(written.get_fdata(), given.get_fdata())
        np.testing.assert_array_equal(written.affine, scan.volume.affine)
        if kind is nibabel.Nifti1Image:
            np.testing.assert_array_equal(written.affine, given.affine)
            for name in (*GRID_FIELDS, "xyzt_units"):
                assert written.header[name].tobytes() == given.header[name].tobytes(), name
        else:
            np.testing.assert_allclose(written.affine, given.affine, rtol=0, atol=2e-5)
        if kind is nibabel.MGHImage:
            assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, 1)
        assert scan.notes == () and scan.warnings == ()


def test_results_hold_nothing_of_the_person(tmp_path: Path) -> None:
    """Neither header text, extensions, gzip name nor time of the scan reach a result."""
    image = nibabel.Nifti1Image(corpus.head(), corpus.AFFINE, corpus.header_of(corpus.head()))
    image.header["cal_max"], image.header["intent_name"] = 99, b"Jane"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nibabel.save(image, tmp_path / "jane.nii.gz")
    scan = read_scan(tmp_path / "jane.nii.gz")
    write_labels(tmp_path / "first.nii.gz", np.ones(corpus.SHAPE, np.int32), scan)
    write_labels(tmp_path / "second.nii.gz", np.ones(corpus.SHAPE, np.int32), scan)
    packed = (tmp_path / "first.nii.gz").read_bytes()
    content = gzip.decompress(packed)
    assert packed == (tmp_path / "second.nii.gz").read_bytes()
    assert packed[3] == 0 and packed[4:8] == bytes(4)  # no file name, no time
    assert b"Jane" not in content and b"secret" not in content and b"patient" not in content
    header = nibabel.load(tmp_path / "first.nii.gz").header
    assert not header.extensions and float(header["cal_max"]) == 0 and content[348:352] == bytes(4)
    assert (float(np.frombuffer(content, "<f4", 1, 112)[0]), float(np.frombuffer(content, "<f4", 1, 116)[0])) == (1, 0)


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (np.array([0, 77], np.int32), np.int16),
        (np.array([0, 2035], np.int64), np.int16),
        (np.array([-1, 40000], np.int64), np.int32),
        (np.array([False, True]), np.uint8),
        (np.array([0, 3], np.uint8), np.uint8),
        (np.array([0, 65535], np.uint16), np.int32),
    ],
)
def test_labels_take_the_smallest_type_that_holds_them(data: np.ndarray, dtype: type, tmp_path: Path) -> None:
    scan = read_scan(corpus.fields()(tmp_path))
    labels = np.resize(data, corpus.SHAPE)
    write_labels(tmp_path / "labels.nii.gz", labels, scan)
    assert nibabel.load(tmp_path / "labels.nii.gz").get_data_dtype() == dtype
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz").volume.data, labels)


def test_labels_that_fit_nowhere_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    scan = read_scan(corpus.fields()(tmp_path))
    with pytest.raises(ValueError, match="32 bits"):
        write_labels(tmp_path / "l.nii.gz", np.full(corpus.SHAPE, 2**40), scan)
    with pytest.raises(TypeError, match="whole numbers"):
        write_labels(tmp_path / "l.nii.gz", np.zeros(corpus.SHAPE), scan)
    with pytest.raises(ValueError, match="grid"):
        write_labels(tmp_path / "l.nii.gz", np.zeros((3, 3, 3), np.uint8), scan)
    assert not list(tmp_path.glob("*.gz")) and not list(tmp_path.glob(".spanseg*"))


def test_images_and_probabilities_are_written(tmp_path: Path) -> None:
    scan = read_scan(corpus.fields()(tmp_path))
    write_image(tmp_path / "brain.nii.gz", scan.volume.data.astype(np.float64) / 3, scan)
    brain = nibabel.load(tmp_path / "brain.nii.gz")
    np.testing.assert_array_equal(brain.get_fdata(dtype=np.float32), (scan.volume.data.astype(float) / 3).astype("f4"))
    shares = np.stack([scan.volume.data, 255 - scan.volume.data], axis=-1).clip(0, 255).astype(np.uint8)
    write_image(tmp_path / "probseg.nii.gz", shares, scan, slope=1 / 255)
    probabilities = nibabel.load(tmp_path / "probseg.nii.gz")
    assert probabilities.get_data_dtype() == np.uint8
    np.testing.assert_allclose(probabilities.get_fdata(), shares / 255, atol=1e-6)
    np.testing.assert_array_equal(probabilities.affine, scan.volume.affine)


def test_label_maps_may_be_stored_as_floats_but_hold_whole_numbers(tmp_path: Path) -> None:
    floats = corpus.of(lambda: (corpus.head() // 10).astype(np.float32))(tmp_path)
    np.testing.assert_array_equal(read_labels(floats).volume.data, corpus.head() // 10)
    for value, words in ((0.5, "0.5"), (float("nan"), "nan")):
        path = corpus.of(lambda value=value: corpus.with_values({(1, 2, 3): value}))(tmp_path)
        with pytest.raises(SpansegError, match=words):
            read_labels(path)
    large = corpus.of(lambda: corpus.head(np.int64) + 2**40)(tmp_path)
    with pytest.raises(SpansegError, match="32 bits"):
        read_labels(large)
    small = corpus.of(lambda: np.arange(27, dtype=np.uint8).reshape(3, 3, 3))(tmp_path)
    np.testing.assert_array_equal(read_labels(small).volume.data.ravel(), np.arange(27))


def test_too_little_memory_is_said_before_any_is_taken(tmp_path: Path) -> None:
    data = corpus.head(shape=(100, 120, 96))
    path = corpus.of(lambda: data, **corpus.rows(2, 2, 2))(tmp_path)
    read_scan(path, max_memory_bytes=data.size * 7)
    tracemalloc.start()
    with pytest.raises(SpansegError, match=r"100 × 120 × 96 voxels need 8 MiB .* 1 MiB"):
        read_scan(path, max_memory_bytes=2**20)
    taken_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken_bytes < 2**20 < data.nbytes


def test_what_the_trusted_form_says_is_what_results_say(tmp_path: Path) -> None:
    path = corpus.forms(corpus.AFFINE, corpus.MIRRORED)(tmp_path)
    for trust, affine in (("sform", corpus.AFFINE), ("qform", corpus.MIRRORED)):
        scan = read_scan(path, trust=trust)
        np.testing.assert_array_equal(scan.volume.affine, affine)
        write_labels(tmp_path / "labels.nii.gz", np.ones(corpus.SHAPE, np.uint8), scan)
        written = nibabel.load(tmp_path / "labels.nii.gz")
        np.testing.assert_array_equal(written.get_sform(), affine)
        np.testing.assert_allclose(written.get_qform(), affine, atol=1e-5)
        read_labels(tmp_path / "labels.nii.gz")  # results can be read without --trust


def test_both_codes_zero_is_read_as_nibabel_reads_it(tmp_path: Path) -> None:
    path = corpus.fields(sform_code=0, qform_code=0)(tmp_path)
    np.testing.assert_array_equal(read_scan(path).volume.affine, nibabel.load(path).affine)


def test_straightening_keeps_the_middle_and_satisfies_itk(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    bent = corpus.sheared(9e-4)
    path = corpus.forms(bent, None)(tmp_path)
    with pytest.raises(RuntimeError, match="orthonormal"):
        itk.ReadImage(str(path))
    scan = read_scan(path)
    middle = np.append((np.array(corpus.SHAPE) - 1) / 2, 1)
    np.testing.assert_allclose(scan.volume.affine @ middle, bent @ middle, atol=1e-4)
    np.testing.assert_allclose(scan.volume.voxel_size_mm, np.sqrt((bent[:3, :3] ** 2).sum(axis=0)), rtol=1e-6)
    write_labels(tmp_path / "labels.nii.gz", np.ones(corpus.SHAPE, np.uint8), scan)
    read = itk.ReadImage(str(tmp_path / "labels.nii.gz"))
    np.testing.assert_allclose(np.array(read.GetOrigin()) * (-1, -1, 1), scan.volume.affine[:3, 3], atol=1e-4)


def test_metres_become_millimetres_and_results_keep_the_file_s_unit(tmp_path: Path) -> None:
    sizes = corpus.size(0.003, 0.003, 0.003)
    path = corpus.forms(corpus.IN_METRES, None, xyzt_units=1, pixdim=sizes)(tmp_path)
    scan = read_scan(path)
    np.testing.assert_allclose(scan.volume.affine, corpus.AFFINE, rtol=1e-6)
    write_labels(tmp_path / "labels.nii.gz", np.ones(corpus.SHAPE, np.uint8), scan)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "labels.nii.gz").affine, nibabel.load(path).affine)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*GRID_FIELDS, "dim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "xyzt_units"]),
    st.integers(0, 7),
    st.sampled_from([0, 1, -1, 2, 3.7, 99, -32768, 32767, 1e-9, 1e30, float("nan"), float("inf")]),
)
def test_any_value_in_a_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, value: float
) -> None:
    header = corpus.header_of(corpus.head())
    with np.errstate(all="ignore"):
        field = header[name].astype(np.float64)
        field.reshape(-1)[at % field.size] = value
        cast = np.nan_to_num(field) if header[name].dtype.kind in "iu" else field
        header[name] = cast.astype(header[name].dtype)
    path = tmp_path_factory.mktemp("header") / "scan.nii"
    path.write_bytes(header.binaryblock + bytes(4) + corpus.head().tobytes(order="F"))
    try:
        scan = read_scan(path)
    except SpansegError as refusal:
        assert is_one_sentence(str(refusal), path)
        return
    written = path.with_name("out.nii.gz")
    write_labels(written, np.ones(scan.volume.shape, np.uint8), scan)
    np.testing.assert_array_equal(read_labels(written).volume.affine, scan.volume.affine)


def test_arrays_are_checked_as_files_are(tmp_path: Path) -> None:
    volume = Volume(corpus.head(np.float64)[..., None], corpus.AFFINE + 1e-9)
    scan = scan_of(volume)
    np.testing.assert_array_equal(scan.volume.affine, volume.affine)
    assert scan.volume.shape == corpus.SHAPE and scan.notes == () and scan.sha256 == scan_of(volume).sha256
    write_labels(tmp_path / "labels.nii.gz", np.ones(corpus.SHAPE, np.uint8), scan)
    np.testing.assert_allclose(nibabel.load(tmp_path / "labels.nii.gz").affine, corpus.AFFINE, atol=1e-5)
    for data, affine, words in (
        (np.zeros(corpus.SHAPE), corpus.AFFINE, "same value"),
        (corpus.head()[0], corpus.AFFINE, "3-D array"),
        (corpus.head().astype(np.complex64), corpus.AFFINE, "3-D array"),
        (corpus.head(), corpus.AFFINE * np.nan, "singular"),
        (corpus.head(), np.zeros((4, 4)), "singular"),
        (corpus.head(), np.eye(3), "affine of shape"),
    ):
        with pytest.raises(SpansegError, match=words):
            scan_of(Volume(data, affine))


def test_the_array_given_is_left_alone() -> None:
    data = corpus.with_values({(1, 2, 3): float("nan")})
    before = data.copy()
    scan_of(Volume(data, corpus.AFFINE))
    np.testing.assert_array_equal(data, before)


def test_no_permission_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus.fields()(tmp_path)

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpansegError, match="no permission"):
        read_scan(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii")
    with pytest.raises(SpansegError, match="pipe"):
        read_scan(tmp_path / "scan.nii")


def test_image_names() -> None:
    for name in ("a.nii", "a.NII.GZ", "a.mgz", "a.mgh"):
        assert is_nifti_or_mgh(Path("folder") / name)
    for name in ("a.nii.bz2", "._a.nii", "a.json", "a.img"):
        assert not is_nifti_or_mgh(Path(name))


def test_freesurfer_files(shared_data: Path, tmp_path: Path) -> None:
    bert = shared_data / "freesurfer" / "bert" / "mri"
    scan, labels = read_scan(bert / "norm.mgz"), read_labels(bert / "aseg.mgz")
    reference = nibabel.load(bert / "norm.mgz")
    assert (scan.volume.data == np.asarray(reference.dataobj)).all()
    np.testing.assert_allclose(scan.volume.affine, reference.affine, atol=1e-5)
    assert scan.notes == () and scan.warnings == ()
    write_labels(tmp_path / "aseg.nii.gz", labels.volume.data, scan)
    written = nibabel.load(tmp_path / "aseg.nii.gz")
    assert (np.asarray(written.dataobj) == np.asarray(nibabel.load(bert / "aseg.mgz").dataobj)).all()
    np.testing.assert_allclose(written.affine, reference.affine, atol=1e-5)
