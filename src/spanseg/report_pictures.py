"""Slices of a scan with the contours of its structures, as small pictures that show no face."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from spanseg.labels import load_protocol
from spanseg.result import Segmentation
from spanseg.volume import Volume, canonical, voxel_to_world

if TYPE_CHECKING:
    from spanseg.images import Scan

PLANES = ("sagittal", "coronal", "axial")
"""Planes in the order of the axis that they cut: right, anterior, superior."""
MARGIN_MM = 10.0
"""What lies further from the brain mask than this is black, so that no picture holds a face."""
SLICES = 8
"""Pictures a series."""
PIXELS_PER_MM = 2.0
"""A voxel of 1 mm is 2 × 2 pixels, so that a contour of one pixel hides little of the scan."""
CLOSE_UP_PIXELS_PER_MM = 4.0
"""The same for the close-up of the deep nuclei."""
MASK_COLOUR = (255, 220, 90)
"""Colour of the mask's contour."""
OTHER_COLOUR = (190, 255, 0)
"""Colour of the contours of labels that the protocol does not name: a lesion."""
_CSF_ID = 24
_SMOOTH = Image.Resampling.BICUBIC
_LARGEST_PIXELS = 900  # of a picture's longer side, however large a header says the brain is
_CLOSE_UP_MM = 12.0
_BRIGHTEST = 200
_COARSE_MM = 2.0

_Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Slice:
    """One slice, drawn with up (axial: front) at the top and the person's right (sagittal: front) on the right.

    Args:
        plane: one of ``PLANES``.
        close_up: whether it shows the deep nuclei alone and not the whole brain.
        position_mm: world coordinate of the slice's middle along the axis that it cuts.
        size: width and height in pixels.
        scan_jpeg: the scan alone.
        contours_png: contours alone, transparent elsewhere, of the same size.
    """

    plane: str
    close_up: bool
    position_mm: float
    size: tuple[int, int]
    scan_jpeg: bytes
    contours_png: bytes


def brain_slices(scan: Scan, result: Segmentation) -> list[Slice]:
    """Draw slices in three planes across the brain and close to the nuclei; an empty list if the mask is empty.

    Args:
        scan: the scan as read.
        result: its segmentation, on the same grid. Oblique scans are shown along their own axes.
    """
    box = _extent(canonical(result.mask)[0], MARGIN_MM)
    if box is None:
        return []
    painter = _Painter(scan, result, box)
    brain = _extent(painter.labels.with_data(_cropped(result.tissue, box).data > 1), 0) or painter.everything
    slices = [painter.draw(axis, index) for axis in (2, 1, 0) for index in _spread(brain[axis], 0.1)]
    nuclei = np.isin(painter.labels.data, load_protocol(result.protocol).groups.get("nuclei", []))
    close, extent = (_extent(painter.labels.with_data(nuclei), margin) for margin in (_CLOSE_UP_MM, 0))
    if close and extent:
        slices += [painter.draw(1, index, close) for index in _spread(extent[1], 0.03)]
    return slices


def contour_colours(result: Segmentation) -> dict[int, tuple[int, int, int]]:
    """Colour of each id that gets a contour: the protocol's, but dark ones brightened for a thin line on a dark scan.

    Sulcal CSF gets none: the mask's contour shows where it ends. Ids beside the protocol get ``OTHER_COLOUR``.
    """
    colours = {row.id: OTHER_COLOUR for row in result.volumes if row.id}
    for structure in load_protocol(result.protocol).structures:
        factor = max(1.0, _BRIGHTEST / max(1, *structure.colour))
        red, green, blue = (min(255, round(value * factor)) for value in structure.colour)
        colours[structure.id] = red, green, blue
    return {label: colour for label, colour in colours.items() if label not in (0, _CSF_ID)}


class _Painter:
    """Draws slices of one scan, all with the same window and colours."""

    def __init__(self, scan: Scan, result: Segmentation, box: _Box) -> None:
        self.image, self.labels = _cropped(scan.volume, box), _cropped(result.labels, box)
        self.mask = _cropped(result.mask, box)
        self.margin = _Margin(self.mask, _cropped(result.tissue, box).data > 1)
        self.low, self.high = _window(self.image.data, self.margin)
        self.ink = _Ink(contour_colours(result))
        i, j, k = self.mask.shape
        self.everything: _Box = (slice(0, i), slice(0, j), slice(0, k))

    def draw(self, axis: int, index: int, close: _Box | None = None) -> Slice:
        """Draw slice ``index`` of ``axis``, all of it or as a close-up of part of the other two axes."""
        part, pixels_per_mm = (close, CLOSE_UP_PIXELS_PER_MM) if close else (self.everything, PIXELS_PER_MM)
        first, second = (other for other in range(3) if other != axis)
        cut = tuple(index if other == axis else part[other] for other in range(3))
        image, labels, inside = (volume.data[cut].T[::-1] for volume in (self.image, self.labels, self.mask))
        near = self.margin.covers(axis, index)[part[first], part[second]].T[::-1]
        grey = np.clip((image - self.low) * (255 / (self.high - self.low)), 0, 255)
        grey = np.where(near, grey, 0).astype(np.uint8)
        sides_mm = self.image.voxel_size_mm[[first, second]] * image.T.shape
        scale = min(pixels_per_mm, _LARGEST_PIXELS / float(sides_mm.max()))
        width, height = (max(1, round(float(side) * scale)) for side in sides_mm)
        contours = self.ink.contours(_enlarged(labels, width, height), _enlarged(inside > 0, width, height))
        middle = (np.array(self.image.shape) - 1) / 2
        middle[axis] = index
        return Slice(
            plane=PLANES[axis],
            close_up=close is not None,
            position_mm=float(voxel_to_world(self.image.affine, middle)[axis]),
            size=(width, height),
            scan_jpeg=_encoded(Image.fromarray(grey).resize((width, height), _SMOOTH), "JPEG", quality=85),
            contours_png=_encoded(contours, "PNG", transparency=0),
        )


def _extent(volume: Volume, margin_mm: float) -> _Box | None:
    """Part of the grid that holds all voxels above 0 and a margin; ``None`` if there are none."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(volume.data.any(axis=others))
        if not filled.size:
            return None
        reach = int(np.ceil(margin_mm / volume.voxel_size_mm[axis]))
        end = min(int(filled[-1]) + reach + 1, volume.shape[axis])
        box.append(slice(max(0, int(filled[0]) - reach), end))
    return box[0], box[1], box[2]


def _cropped(volume: Volume, box: _Box) -> Volume:
    turned, _ = canonical(volume)
    affine = turned.affine.copy()
    affine[:3, 3] = voxel_to_world(turned.affine, np.array([part.start for part in box]))
    return Volume(turned.data[box], affine)


class _Margin:
    """Which voxels lie within ``MARGIN_MM`` of the mask, on the safe side: a little less (1.7 mm for voxels of 1 mm).

    Of the mask, what lies further than that from the largest piece of grey and white matter does not count: on a poor
    scan the mask may reach into the orbits. To be quick, distances to every n-th voxel of the mask are computed on a
    grid of every n-th voxel. On that grid they are never too small; between its points they are, by at most the
    distance to the next one, which is taken off.
    """

    def __init__(self, mask: Volume, tissue: np.ndarray) -> None:
        from scipy import ndimage

        voxel_mm = mask.voxel_size_mm
        self.steps = np.maximum(1, (_COARSE_MM / voxel_mm).astype(int))
        inside = mask.data[tuple(slice(None, None, step) for step in self.steps)] > 0
        if not inside.any():
            self.steps, inside = np.ones(3, int), mask.data > 0
        pieces, found = ndimage.label(inside & tissue[tuple(slice(None, None, step) for step in self.steps)])
        if found:
            brain = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
            inside &= ndimage.distance_transform_edt(~brain, sampling=voxel_mm * self.steps) <= MARGIN_MM
        self.inside = inside
        self.distance_mm = ndimage.distance_transform_edt(~inside, sampling=voxel_mm * self.steps).astype(np.float32)
        self.reach_mm = MARGIN_MM - float(np.linalg.norm((self.steps - 1) * voxel_mm))
        self.between = [_interpolation(n, step) for n, step in zip(mask.shape, self.steps, strict=True)]

    def covers(self, axis: int, index: int) -> np.ndarray:
        """Whether each voxel of a slice may be shown, shape of the slice."""
        plane = np.tensordot(self.between[axis][index], self.distance_mm, (0, axis))
        first, second = (self.between[other] for other in range(3) if other != axis)
        return (first @ plane @ second.T) <= self.reach_mm


def _interpolation(n: int, step: int) -> np.ndarray:
    """Weights (n, coarse) of every step-th voxel in a linear interpolation at all n voxels."""
    coarse = np.arange(0, n, step)
    return np.stack([np.interp(np.arange(n), coarse, unit) for unit in np.eye(len(coarse))], axis=1).astype(np.float32)


def _window(image: np.ndarray, margin: _Margin) -> tuple[float, float]:
    """Intensities shown black and white; they depend on nothing beyond the margin."""
    coarse = image[tuple(slice(None, None, step) for step in margin.steps)]
    low = float(np.percentile(coarse[margin.distance_mm <= margin.reach_mm], 0.5))
    bright = float(np.percentile(coarse[margin.inside], 99))
    # A little darker than could be, so that light contours stand out from white matter.
    return low, low + (1.2 * (bright - low) if bright > low else 1)


def _spread(extent: slice, inset: float) -> list[int]:
    """Indices of the slices to draw, evenly over an extent less a part of it at either end."""
    first, last = extent.start, extent.stop - 1
    ends = first + inset * (last - first), last - inset * (last - first)
    return np.unique(np.linspace(*ends, SLICES).round().astype(int)).tolist()


def _enlarged(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Repeat pixels to another size."""
    rows = (np.arange(height) + 0.5) * plane.shape[0] / height
    columns = (np.arange(width) + 0.5) * plane.shape[1] / width
    return plane[np.ix_(rows.astype(int), columns.astype(int))]


class _Ink:
    """Palette of the contours: 0 is transparent, 1 the mask's colour, the rest those of the structures."""

    def __init__(self, colours: dict[int, tuple[int, int, int]]) -> None:
        distinct = list(dict.fromkeys(colours.values()))[:254]
        self.palette = bytes(value for colour in ((0, 0, 0), MASK_COLOUR, *distinct) for value in colour)
        self.code = np.zeros(max(colours, default=0) + 2, np.uint8)  # the last entry is for ids without a colour
        for label, colour in colours.items():
            self.code[label] = 2 + distinct.index(colour) if colour in distinct else 1

    def contours(self, ids: np.ndarray, inside: np.ndarray) -> Image.Image:
        """Draw a line of one pixel along the inner side of the mask's border and of each structure's."""
        drawn = (_border(inside) & inside).astype(np.uint8)
        line = _border(ids)
        code = self.code[np.minimum(ids[line], len(self.code) - 1)]
        drawn[line] = np.where(code > 0, code, drawn[line])
        picture = Image.frombytes("P", drawn.shape[::-1], drawn.tobytes())
        picture.putpalette(self.palette)
        return picture


def _border(plane: np.ndarray) -> np.ndarray:
    """Pixels with another value above, below, left or right of them."""
    line = np.zeros(plane.shape, bool)
    down, across = plane[1:] != plane[:-1], plane[:, 1:] != plane[:, :-1]
    line[1:] |= down
    line[:-1] |= down
    line[:, 1:] |= across
    line[:, :-1] |= across
    return line


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()
