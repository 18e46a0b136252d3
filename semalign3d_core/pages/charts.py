"""Charts as inline SVG, so that a report is one file and needs no plotting package."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 700, 360, 52, 44, 14, 200
BAR_SHADES = ("#a9cdea", "#4a93c9", "#0b4f86")  # the loosest threshold first
MARK_COLOURS = ("#d1495b", "#1c1e21")
COLOURS = ("#0b62a4", "#d1495b", "#2e8b57", "#edae49", "#7b4fa3", "#00798c", "#8c5a2b", "#c2185b", "#5a7d2a", "#4b4e6d")


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    x_label: str,
    y_label: str = "PCK (%)",
    y_range: tuple[float, float] = (0, 100),
    marked: Sequence[float] = (),
) -> str:
    """SVG of ``series``: {name: [(x, y), ...]}; values that are None are left out. The first series is drawn boldly.

    marked: places on the x axis with a dotted line
    """
    xs = [x for points in series.values() for x, _ in points]
    if not xs:
        return "<p>nothing to draw</p>"
    x_range = (min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
    place = _scale(x_range, y_range)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">']
    parts += _axes(place, x_range, y_range, sorted(set(xs)), x_label, y_label)
    for x in marked:
        (u, top), (_, bottom) = place(x, y_range[1]), place(x, y_range[0])
        parts.append(f'<line x1="{u:.1f}" y1="{top:.1f}" x2="{u:.1f}" y2="{bottom:.1f}" stroke="#999" stroke-dasharray="2 3"/>')
    for index, (name, points) in enumerate(series.items()):
        parts += _line(place, name, [(x, y) for x, y in points if y is not None], index)
    return "\n".join([*parts, "</svg>"])


def bar_chart(values: Mapping[str, float | None], label: str) -> str:
    """SVG of horizontal bars ``{name: percent}``; a value that is None is left out."""
    shown = {name: value for name, value in values.items() if value is not None}
    height, start, unit = 24 * len(shown) + 30, 270, (WIDTH - 270 - 60) / 100
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">']
    for index, (name, value) in enumerate(shown.items()):
        y, colour = 24 * index + 4, COLOURS[0 if index == 0 else 5]
        parts.append(f'<text x="{start - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{start}" y="{y}" width="{unit * value:.1f}" height="18" fill="{colour}"/>')
        parts.append(f'<text x="{start + unit * value + 6:.1f}" y="{y + 14}">{value:.1f}</text>')
    parts.append(f'<text x="{start}" y="{height - 8}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"])


def category_chart(values: Any, marks: Any, label: str) -> str:
    """SVG of one row per category with bars of all thresholds over each other, and marks of other results.

    values: {category: {alpha: percent or None}};  marks: {name: {category: percent}}
    """
    alphas = sorted(next(iter(values.values())), key=float, reverse=True)
    shades = {alpha: BAR_SHADES[min(index, len(BAR_SHADES) - 1)] for index, alpha in enumerate(alphas)}
    start, row, top = 120, 19, 20 + 16 * len(marks)
    height, unit = top + row * len(values) + 36, (WIDTH - start - 60) / 100
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)} per category">']
    parts += _legend({f"@{alpha}": shades[alpha] for alpha in alphas}, marks, start)
    for percent in range(0, 101, 20):
        x = start + unit * percent
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{height - 34}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle">{percent}</text>')
    for index, (name, scores) in enumerate(values.items()):
        y = top + row * index + row / 2
        parts.append(f'<text x="{start - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        for alpha in alphas:
            if scores[alpha]:
                end = start + unit * scores[alpha]
                parts.append(f'<line x1="{start}" y1="{y}" x2="{end:.1f}" y2="{y}" stroke="{shades[alpha]}" stroke-width="12"/>')
        if scores[alphas[0]] is not None:
            parts.append(f'<text x="{start + unit * scores[alphas[0]] + 5:.1f}" y="{y + 4:.1f}">{scores[alphas[0]]:.1f}</text>')
        for number, of in enumerate(marks.values()):
            if name in of:
                parts.append(_mark(start + unit * of[name], y, number))
    parts.append(f'<text x="{(start + WIDTH - 60) / 2}" y="{height - 4}" text-anchor="middle">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"])


def _legend(shades, marks, start):
    """The thresholds in one line, one line for each kind of mark."""
    parts = []
    for index, (name, shade) in enumerate(shades.items()):
        x = start + 80 * index
        parts.append(f'<line x1="{x}" y1="9" x2="{x + 20}" y2="9" stroke="{shade}" stroke-width="12"/>')
        parts.append(f'<text x="{x + 26}" y="13">{escape(name)}</text>')
    for index, name in enumerate(marks):
        y = 26 + 16 * index
        parts.append(_mark(start + 10, y, index) + f'<text x="{start + 26}" y="{y + 4}">{escape(name)}</text>')
    return parts


def _mark(x, y, index):
    colour = MARK_COLOURS[index % len(MARK_COLOURS)]
    return f'<line x1="{x:.1f}" y1="{y - 7}" x2="{x:.1f}" y2="{y + 7}" stroke="{colour}" stroke-width="2.5"/>'


def _scale(x_range, y_range):
    def place(x, y):
        u = LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT)
        v = HEIGHT - BOTTOM - (y - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - BOTTOM - TOP)
        return u, v

    return place


def _axes(place, x_range, y_range, xs, x_label, y_label):
    parts = []
    for step in range(6):
        y = y_range[0] + step * (y_range[1] - y_range[0]) / 5
        (u, v), (end, _) = place(x_range[0], y), place(x_range[1], y)
        parts.append(f'<line x1="{u:.1f}" y1="{v:.1f}" x2="{end:.1f}" y2="{v:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{u - 6:.1f}" y="{v + 4:.1f}" text-anchor="end">{y:g}</text>')
    ticks = xs if len(xs) <= 8 else [x for x in _round_ticks(x_range[1]) if x >= x_range[0]]
    for x in ticks:
        u, v = place(x, y_range[0])
        parts.append(f'<text x="{u:.1f}" y="{v + 16:.1f}" text-anchor="middle">{x:.3g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text transform="translate(13 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return parts


def _round_ticks(largest):
    """About five round numbers from 0 to ``largest``."""
    power = 10 ** math.floor(math.log10(largest / 4))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda size: abs(largest / size - 5))
    return [round(i * step, 10) for i in range(int(largest / step + 1e-9) + 1)]


def _line(place, name, points, index):
    colour, width = COLOURS[index % len(COLOURS)], 3 if index == 0 else 1.4
    dash = "" if index < len(COLOURS) else ' stroke-dasharray="5 3"'
    line = " ".join(f"{u:.1f},{v:.1f}" for u, v in (place(x, y) for x, y in points))
    style = f'fill="none" stroke="{colour}" stroke-width="{width}"{dash}'
    parts = [f'<polyline points="{line}" {style}><title>{escape(name)}</title></polyline>']
    if len(points) <= 8:
        parts += [f'<circle cx="{u:.1f}" cy="{v:.1f}" r="3" fill="{colour}"/>' for u, v in (place(x, y) for x, y in points)]
    x, y = WIDTH - RIGHT + 12, TOP + 12 + 16 * index
    parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" {style}/>')
    parts.append(f'<text x="{x + 28}" y="{y}">{escape(name)}</text>')
    return parts
