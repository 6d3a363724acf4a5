"""Plots of records as SVG files, on white, readable wherever Markdown shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLOURS = (
    "#1f6f78",
    "#c0652b",
    "#5b5ea6",
    "#8a8f3a",
    "#a1252f",
    "#3a7d44",
    "#7a5c3e",
    "#3c6fb5",
    "#9c4f96",
    "#5f6770",
    "#b8860b",
)
_FONT = 'font-family="system-ui,Segoe UI,Roboto,Helvetica,Arial,sans-serif"'


@dataclass(frozen=True)
class Series:
    name: str
    points: tuple[tuple[float, float], ...]  # all above zero


@dataclass(frozen=True)
class Row:
    label: str
    values: tuple[float, ...]  # one per seed
    text: str


def short(value: float) -> str:
    """Four digits, and no exponent where a plain number is as short."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'{_FONT} font-size="13">\n<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#1d2126", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
    )


def dots(title: str, panels: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """A panel per metric on an axis of its own: a dot per seed, a line at the mean, and the figure beside it."""
    width, step, left, right = 720, 22, 150, 170
    parts = [_text(16, 26, title, size=16)]
    y = 44.0
    for name, rows in panels:
        y += 20
        parts.append(_text(16, y, name, colour="#626a73"))
        y += 8
        every = [value for row in rows for value in row.values]
        low, high = min(every, default=0.0), max(every, default=1.0)
        if high == low:
            low, high = low - 0.5, high + 0.5
        scale = (width - left - right - 16) / (high - low)
        for row in rows:
            middle = y + step / 2
            spots = [left + 8 + (value - low) * scale for value in row.values]
            parts.append(_text(left - 8, middle + 4, row.label, "end"))
            parts.append(f'<path d="M{left},{middle:.1f}H{width - right}" stroke="#e2e0da"/>')
            mean = sum(spots) / len(spots)
            parts.append(f'<path d="M{mean:.1f},{middle - 8:.1f}v16" stroke="#c0652b" stroke-width="2.5"/>')
            parts += [
                f'<circle cx="{u:.1f}" cy="{middle:.1f}" r="4" fill="#1f6f78" fill-opacity="0.75"/>' for u in spots
            ]
            parts.append(_text(width - right + 12, middle + 4, row.text))
            y += step
        parts.append(_text(left, y + 12, short(low), "start", "#626a73", 11))
        parts.append(_text(width - right, y + 12, short(high), "end", "#626a73", 11))
        y += 18
    return _svg(width, round(y + 12), parts)


def loglog(panels: Sequence[tuple[str, str, str, Sequence[Series]]], columns: int = 2) -> str:
    """Panels of (title, x label, y label, lines) on logarithmic axes, with a line of slope 1 to compare with."""
    w, h, gap_x, gap_y = 430, 330, 10, 10
    rows = math.ceil(len(panels) / columns)
    parts = []
    for number, panel in enumerate(panels):
        x, y = (number % columns) * (w + gap_x), (number // columns) * (h + gap_y)
        parts.append(f'<g transform="translate({x},{y})">' + "\n".join(_panel(*panel, w, h)) + "</g>")
    return _svg(columns * (w + gap_x), rows * (h + gap_y), parts)


def _panel(title: str, x_label: str, y_label: str, lines: Sequence[Series], w: int, h: int) -> list[str]:
    left, right, top, bottom = 62, 104, 40, 46
    xs = [p[0] for line in lines for p in line.points]
    ys = [p[1] for line in lines for p in line.points]
    parts = [_text(left, 22, title, size=14)]
    if not xs:
        return [*parts, _text(left, 60, "no figures", colour="#626a73")]
    x0, x1 = math.log10(min(xs)) - 0.06, math.log10(max(xs)) + 0.06
    y0, y1 = math.log10(min(ys)) - 0.08, math.log10(max(ys)) + 0.08

    def at(x: float, y: float) -> tuple[float, float]:
        u = left + (math.log10(x) - x0) / (x1 - x0) * (w - left - right)
        return u, h - bottom - (math.log10(y) - y0) / (y1 - y0) * (h - top - bottom)

    for tick in _ticks(y0, y1):
        v = at(10**x0, tick)[1]
        parts.append(f'<path d="M{left},{v:.1f}H{w - right}" stroke="#e2e0da"/>')
        parts.append(_text(left - 6, v + 4, f"{tick:g}", "end", "#626a73", 11))
    for tick in _ticks(x0, x1):
        u = at(tick, 10**y0)[0]
        parts.append(f'<path d="M{u:.1f},{top}V{h - bottom}" stroke="#e2e0da"/>')
        parts.append(_text(u, h - bottom + 15, f"{tick:g}", "middle", "#626a73", 11))
    parts.append(_text((left + w - right) / 2, h - 12, x_label, "middle", "#626a73", 12))
    parts.append(_text(w - right, 22, y_label, "end", "#626a73", 12))
    parts.append(_slope_one(at, x0, x1, y0, y1))
    ends = sorted((at(*line.points[-1])[1], k) for k, line in enumerate(lines))
    previous = -100.0
    for v, k in ends:
        line, colour = lines[k], _COLOURS[k % len(_COLOURS)]
        spots = [at(*point) for point in line.points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in spots]
        previous = max(v + 4, previous + 13)
        parts.append(_text(w - right + 6, previous, line.name, colour=colour, size=12))
    return parts


def _slope_one(at, x0: float, x1: float, y0: float, y1: float) -> str:  # type: ignore[no-untyped-def]
    """Through the middle, cut at the panel's edges."""
    mx, my = (x0 + x1) / 2, (y0 + y1) / 2
    reach = min(x1 - mx, y1 - my)
    (a, b), (c, d) = (at(10 ** (mx + s * reach), 10 ** (my + s * reach)) for s in (-1, 1))
    return f'<path d="M{a:.1f},{b:.1f}L{c:.1f},{d:.1f}" stroke="#9aa2ab" stroke-dasharray="5 4" fill="none"/>'


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of every decade where the axis is short, else powers of ten."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    found = [f * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for f in factors]
    return [tick for tick in found if low <= math.log10(tick) <= high]
