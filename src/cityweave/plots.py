"""Plots as SVG files, on white, readable wherever Markdown shows them."""

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
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    title: str
    x_label: str
    y_label: str
    lines: tuple[Series, ...]
    logarithmic: bool = False  # all figures are above zero then
    slope_one: bool = False  # a line of slope 1 to compare with: y = x, or through the middle of a logarithmic panel


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


def panels(drawn: Sequence[Panel], columns: int = 2) -> str:
    """Lines over lines, a panel beside the other."""
    w, h, gap = 430, 330, 10
    parts = []
    for number, panel in enumerate(drawn):
        x, y = (number % columns) * (w + gap), (number // columns) * (h + gap)
        parts.append(f'<g transform="translate({x},{y})">' + "\n".join(_panel(panel, w, h)) + "</g>")
    columns, rows = min(columns, len(drawn)), math.ceil(len(drawn) / columns)
    return _svg(columns * (w + gap), rows * (h + gap), parts)


def _panel(panel: Panel, w: int, h: int) -> list[str]:
    left, right, top, bottom = 62, 104, 40, 46
    log = panel.logarithmic
    stretched = math.log10 if log else float
    xs = [stretched(p[0]) for line in panel.lines for p in line.points]
    ys = [stretched(p[1]) for line in panel.lines for p in line.points]
    parts = [_text(left, 22, panel.title, size=14)]
    if not xs:
        return [*parts, _text(left, 60, "no figures", colour="#626a73")]
    (x0, x1), (y0, y1) = _reach(xs, log), _reach(ys, log)

    def across(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (w - left - right)

    def down(y: float) -> float:
        return h - bottom - (y - y0) / (y1 - y0) * (h - top - bottom)

    ticks = _log_ticks if log else _ticks
    for tick in ticks(y0, y1):
        v = down(stretched(tick))
        parts.append(f'<path d="M{left},{v:.1f}H{w - right}" stroke="#e2e0da"/>')
        parts.append(_text(left - 6, v + 4, f"{tick:g}", "end", "#626a73", 11))
    for tick in ticks(x0, x1):
        u = across(stretched(tick))
        parts.append(f'<path d="M{u:.1f},{top}V{h - bottom}" stroke="#e2e0da"/>')
        parts.append(_text(u, h - bottom + 15, f"{tick:g}", "middle", "#626a73", 11))
    parts.append(_text((left + w - right) / 2, h - 12, panel.x_label, "middle", "#626a73", 12))
    parts.append(_text(w - right, 22, panel.y_label, "end", "#626a73", 12))
    if panel.slope_one:
        off = (y0 + y1 - x0 - x1) / 2 if log else 0.0
        a, b = max(x0, y0 - off), min(x1, y1 - off)
        path = f"M{across(a):.1f},{down(a + off):.1f}L{across(b):.1f},{down(b + off):.1f}"
        parts.append(f'<path d="{path}" stroke="#9aa2ab" stroke-dasharray="5 4" fill="none"/>')
    drawn = [[(across(stretched(x)), down(stretched(y))) for x, y in line.points] for line in panel.lines]
    previous = -100.0
    for _, k in sorted((spots[-1][1], k) for k, spots in enumerate(drawn) if spots):
        spots, colour = drawn[k], _COLOURS[k % len(_COLOURS)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in spots]
        previous = max(spots[-1][1] + 4, previous + 13)
        parts.append(_text(w - right + 6, previous, panel.lines[k].name, colour=colour, size=12))
    return parts


def _reach(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Of an axis: a bit beyond what it shows."""
    low, high = min(values), max(values)
    beyond = 0.07 if log else 0.04 * (high - low) or 0.5
    return low - beyond, high + beyond


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine round numbers."""
    coarse = 10.0 ** math.floor(math.log10(high - low))
    step = next(coarse * f for f in (0.1, 0.2, 0.5, 1.0) if (high - low) / (coarse * f) <= 9 or f == 1.0)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of every decade where the axis is short, else powers of ten."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    found = [f * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for f in factors]
    return [tick for tick in found if low <= math.log10(tick) <= high]
