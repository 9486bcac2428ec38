"""Scans in which one image has two truths, and only the age tells which of them holds.

In a newborn the outer white matter is not myelinated yet and looks like grey matter; the band is narrower the older the
child. People's cortex differs in thickness by as much. So a thick grey ribbon is a thick cortex, or a thin one beside
such a band: the image follows from the sum of both alone, and the truth from the cortex. Head size and contrast are
drawn without regard to the age.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from spanseg.deform import Canvas, Draw
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.generation import GenerationClasses, PackedMap
from spanseg.interfaces import Sample, Told
from spanseg.labels import UNKNOWN
from spanseg.synth import OFFSETS, Generator, SynthOptions, deformation

BAND_MM, GONE_YEARS = 4.0, 1.0
"""Width of the band at birth, and the age at which nothing is left of it."""
THICKNESS_MM = (-1.5, 2.5)
"""How far people's border between cortex and white matter lies inside the map's white matter, from and to."""
AGES_YEARS = {"infant": (0.0, GONE_YEARS), "adult": (18.0, 80.0)}
INFANTS = 0.7
"""Share of infants among those who are drawn."""
_GREY_IDS, _WHITE_IDS = (3, 42), (2, 41)  # FreeSurfer's cortex and cerebral white matter, left and right
_DEPTHS_MM = np.arange(-8, 8, 0.125)  # what a depth is rounded to

Tell = Callable[..., Told]
"""Makes what a network is told of :class:`Facts`; takes ``rng`` to forget some of them, as ``told.Teller`` does."""


@dataclass(frozen=True)
class Someone:
    """What is true about a person, and cannot all be seen.

    Args:
        age_years: decides the width of the band.
        thickness_mm: how far the cortex reaches into the white matter of the label map.
    """

    age_years: float
    thickness_mm: float

    @property
    def band_mm(self) -> float:
        """Width of the outer white matter that looks grey."""
        return band_mm(self.age_years)


def band_mm(age_years: float) -> float:
    """Width of the band at an age: it falls evenly, and is 0 from the first birthday on."""
    return BAND_MM * max(0.0, 1 - age_years / GONE_YEARS)


def someone(seed: int, index: int) -> Someone:
    """Draw a person, from other random numbers than head size, place and contrast."""
    rng = np.random.default_rng([seed, index, 4])
    period = "infant" if rng.random() < INFANTS else "adult"
    return Someone(float(rng.uniform(*AGES_YEARS[period])), float(rng.uniform(*THICKNESS_MM)))


class Ambiguous(Generator):
    """Draws such scans, told the age; brain that is neither cortex nor cerebral white matter is ``UNKNOWN``.

    Args:
        maps: packed label maps.
        table: generation classes of the maps.
        canvas: grid of what is drawn.
        options: how far the generator goes.
        tell: makes what the network is told; ``None`` for a network that is told nothing.
        width: a second channel shows the grey ribbon, ``given`` with the true width of the band as its brightness, or
            ``hidden``, in one brightness for everybody; empty for no second channel. A value that is the same in all
            voxels would be lost in the first instance norm.
    """

    def __init__(
        self,
        maps: Sequence[PackedMap],
        table: GenerationClasses,
        canvas: Canvas,
        options: SynthOptions,
        tell: Tell | None = None,
        width: str = "",
    ) -> None:
        grey, white = np.isin(table.ids, _GREY_IDS), np.isin(table.ids, _WHITE_IDS)
        other = np.isin(table.kind, ("GM", "WM")) & ~grey & ~white
        super().__init__(list(maps), replace(table, target=np.where(other, UNKNOWN, table.target)), canvas, options)
        self.tell, self.width, self.is_grey = tell, width, torch.from_numpy(grey)
        self.classes = np.repeat(np.arange(len(table.ids)), len(_DEPTHS_MM))
        self.as_grey = _exchanged(table, _WHITE_IDS, _GREY_IDS)[self.classes]
        self.as_white = _exchanged(table, _GREY_IDS, _WHITE_IDS)[self.classes]
        codes = (one.classes * np.int16(len(_DEPTHS_MM)) + _depth(one, grey, white) for one in maps)
        self.maps = [(torch.from_numpy(code), one.centre, one.voxel_mm) for code, one in zip(codes, maps, strict=True)]

    def draw(self, seed: int, index: int) -> Sample:
        """Draw somebody and their scan, with the true cortex as target."""
        who = someone(seed, index)
        sample = self.scan_of(who, seed, index)
        if self.tell is None:
            return sample
        return sample._replace(
            told=self.tell(Facts(age_years=who.age_years), rng=np.random.default_rng([seed, index, 5]))
        )

    def scan_of(self, who: Someone, seed: int, index: int) -> Sample:
        """The scan of a given person; all that is not about the person follows from seed and index."""
        draw = Draw(seed, index, self.canvas, self.device)
        codes, centre, voxel_mm = self.maps[int(draw.rng.integers(len(self.maps)))]
        how = deformation(draw, self.options)
        place, larger = how.through(centre, voxel_mm), abs(np.linalg.det(how.matrix)) ** (-1 / 3)
        reads = [place.nearest(codes, offset).int() for offset in ((0.0, 0.0, 0.0), *OFFSETS)]

        def classes(border_mm: float) -> torch.Tensor:
            """Class of each code when cortex and white matter meet that far inside the map's white matter."""
            is_grey = larger * np.tile(_DEPTHS_MM, len(self.classes) // len(_DEPTHS_MM)) < border_mm
            moved = torch.from_numpy(np.where(is_grey, self.as_grey, self.as_white))
            return self.mirror[moved.int()] if how.flip else moved

        seen, true = classes(who.thickness_mm + who.band_mm), classes(who.thickness_mm)
        sample = self._scanned(draw, seen[reads[0]], [seen[read] for read in reads[1:]], true[reads[0]])
        if not self.width:
            return sample
        brightness = 0.5 + (who.band_mm / BAND_MM if self.width == "given" else 0.5)
        ribbon = brightness * self.is_grey[seen[reads[0]].int()]
        return sample._replace(image=torch.cat([sample.image, ribbon[None, None]], 1))


def _exchanged(table: GenerationClasses, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Classes with those of some ids replaced by those of others, one for one; uint8, shape (class,)."""
    changed = np.arange(len(table.ids), dtype=np.uint8)
    for old, new in zip(before, after, strict=True):
        changed[table.ids == old] = np.flatnonzero(table.ids == new)
    return changed


def _depth(packed: PackedMap, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """How deep in white matter a voxel lies, as a place in ``_DEPTHS_MM``; cortex has negative depths, int16.

    Raises:
        SpansegError: the map lacks one of the two.
    """
    from scipy import ndimage

    is_grey, is_white = grey[packed.classes], white[packed.classes]
    if not (is_grey.any() and is_white.any()):
        raise SpansegError(f"{packed.name}: expected cerebral cortex and white matter (ids 2, 3, 41, 42).")
    box = ndimage.find_objects((is_grey | is_white).astype(np.uint8))[0]
    is_grey, is_white, size = is_grey[box], is_white[box], tuple(packed.voxel_mm)
    half = float(np.mean(size)) / 2  # distances go from middle to middle of voxels, the border lies between them
    from_grey, from_white = (ndimage.distance_transform_edt(~one, sampling=size) for one in (is_grey, is_white))
    depth = np.zeros(packed.classes.shape, np.int16)
    depth[box] = np.searchsorted(_DEPTHS_MM[1:], np.where(is_white, from_grey - half, half - from_white), side="right")
    return depth
