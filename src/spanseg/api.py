"""What Python calls: one scan segmented and judged."""

from pathlib import Path
from typing import Any

from spanseg import quality
from spanseg.errors import SpansegError
from spanseg.flags import with_flags
from spanseg.images import read_scan, scan_of
from spanseg.result import Segmentation
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.volume import Volume


def segment(source: str | Path | Volume, options: SegmentOptions | None = None, **settings: Any) -> Segmentation:
    """Segment one scan and judge the result, as the command does; nothing is written.

    The details of what comes back hold the quality score (``quality``: score and reasons, where the model has one) and
    what asks for a second look (``quality_flags``).

    Args:
        source: path of a NIfTI or MGH file, or a volume.
        options: how; or give the fields of :class:`SegmentOptions` as keyword arguments.
        settings: fields of :class:`SegmentOptions`.

    Example:
        >>> result = segment("sub-01_T1w.nii.gz", precision="f32")  # doctest: +SKIP
        >>> result.volumes[0].name  # doctest: +SKIP
        'Left-Cerebral-White-Matter'

    Raises:
        SpansegError: the scan cannot be read or segmented.
    """
    if options is not None and settings:
        raise SpansegError(f"segment takes options or keywords, not both: {', '.join(settings)} would be ignored.")
    chosen = options or SegmentOptions(**settings)
    scan = scan_of(source) if isinstance(source, Volume) else read_scan(source, chosen.trust, chosen.max_memory_bytes)
    predictor = load_model(chosen)
    table = quality.load(predictor.folder.path, predictor.identity["model_sha256"])
    return with_flags(scan, quality.with_quality(scan, segment_scan(scan, predictor, chosen), table))
