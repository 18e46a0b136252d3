"""Pictures of pairs for the report: source and target side by side, lines from the keypoints to where they were predicted."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from semalign3d_core.evaluation.keypoints.scoring import PairScore
from semalign3d_core.perception.evidence import read_image
from semalign3d_core.runtime.errors import SemAlign3DError

THUMBNAIL_HEIGHT = 180
GAP = 8


def best_and_worst(scores: Sequence[PairScore], count: int, alpha_index: int = -1) -> tuple[list[PairScore], list[PairScore]]:
    """The ``count`` pairs with the largest and with the smallest share of points right at a threshold, scored pairs only.

    Of equal shares more points, then the smaller mean error, are better.
    """
    usable = [s for s in scores if not s.problem and len(s.correct)]
    ranked = sorted(usable, key=lambda s: _rank(s, alpha_index))
    half = min(count, (len(ranked) + 1) // 2)
    return ranked[:half], ranked[::-1][: min(count, len(ranked) - half)]


def _rank(score, alpha_index):
    share = score.share[alpha_index]
    surprise = len(score.correct) if share >= 0.5 else -len(score.correct)  # all of many points right or wrong tells more than of few
    return -share, -surprise, _mean_error(score), score.pair.name


def figure(score: PairScore, alpha_index: int, alpha: float) -> str:
    """HTML figure of one scored pair; green lines lead to points that are right at that alpha, red ones to wrong points."""
    record = score.pair.record
    assert record is not None and score.points is not None  # only scored pairs are shown
    try:
        source, source_scale = _thumbnail(record.source)
        target, target_scale = _thumbnail(record.target)
    except SemAlign3DError as error:
        return f"<figure><figcaption>{escape(score.pair.name)}: {escape(str(error))}</figcaption></figure>"
    shift, width = source.width + GAP, source.width + GAP + target.width
    parts = [f'<svg viewBox="0 0 {width} {THUMBNAIL_HEIGHT}" width="{width}">', _embedded(source, 0), _embedded(target, shift)]
    predicted = np.nan_to_num(score.points, nan=-1e4)
    for start, found, truth, right in zip(
        score.pair.source_points * source_scale,
        predicted * target_scale + [shift, 0],
        score.pair.target_points * target_scale + [shift, 0],
        score.correct[:, alpha_index],
        strict=True,
    ):
        colour = "#19b05b" if right else "#e5383b"
        (x, y), (u, v), (a, b) = start, found, truth
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="{colour}" stroke-width="1.1" opacity="0.75"/>')
        parts.append(f'<line x1="{u:.1f}" y1="{v:.1f}" x2="{a:.1f}" y2="{b:.1f}" stroke="#fff" stroke-width="1.3" stroke-dasharray="3 2"/>')
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="none" stroke="#000" stroke-width="3"/>')
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="none" stroke="#fff" stroke-width="1.6"/>')
        for p, q in ((x, y), (u, v)):
            parts.append(f'<circle cx="{p:.1f}" cy="{q:.1f}" r="2.6" fill="{colour}" stroke="#fff" stroke-width="0.6"/>')
    right = int(score.correct[:, alpha_index].sum())
    caption = f"{escape(score.pair.name)}: {right} of {len(score.correct)} right at {alpha:g}"
    return "\n".join(["<figure>", *parts, f"</svg><figcaption>{caption}</figcaption></figure>"])


def _mean_error(score):
    error = np.linalg.norm(score.points - score.pair.target_points, axis=1) / score.pair.unit
    return float(np.minimum(np.nan_to_num(error, nan=10.0), 10.0).mean())


def _thumbnail(record):
    """(picture, scale): the scale takes pixels of the image to pixels of the picture."""
    picture = Image.fromarray(read_image(record.path).rgb)
    scale = THUMBNAIL_HEIGHT / picture.height
    return picture.resize((max(1, round(picture.width * scale)), THUMBNAIL_HEIGHT), Image.Resampling.BILINEAR), scale


def _embedded(picture, x):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<image x="{x}" y="0" width="{picture.width}" height="{picture.height}" href="data:image/jpeg;base64,{data}"/>'
