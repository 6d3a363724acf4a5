"""Small plots as SVG text; colours come from the page's style sheet, so they follow its light or dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def bars(rows: Sequence[tuple[str, float, str]], width: int = 640) -> str:
    """Horizontal bars: (label, value, what to write beside it)."""
    if not rows:
        return ""
    top, step, left, right = 4, 26, 120, 110
    largest = max((value for _, value, _ in rows), default=0.0) or 1.0
    height = top * 2 + step * len(rows)
    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img">']
    for k, (label, value, text) in enumerate(rows):
        y = top + k * step
        length = (width - left - right) * value / largest
        parts.append(f'<text class="label" x="{left - 10}" y="{y + 17}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{y + 5}" width="{max(length, 1):.1f}" height="16" rx="2"/>')
        parts.append(f'<text class="value" x="{left + length + 8:.1f}" y="{y + 17}">{escape(text)}</text>')
    parts.append("</svg>")
    return "".join(parts)


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    size: tuple[int, int] = (420, 260),
) -> str:
    """Lines with dots over one pair of axes; each named at its right end, close ends are moved apart."""
    width, height = size
    left, right, top, bottom = 46, 74 if len(series) > 1 else 16, 28, 40
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    x_low, x_high = min(min(x_ticks), *(p[0] for p in points)), max(max(x_ticks), *(p[0] for p in points))

    def at(x: float, y: float) -> tuple[float, float]:
        u = left + (x - x_low) / (x_high - x_low) * (width - left - right)
        v = height - bottom - (y - y_range[0]) / (y_range[1] - y_range[0]) * (height - top - bottom)
        return u, min(max(v, top), height - bottom)

    parts = [f'<svg class="plot" viewBox="0 0 {width} {height}" role="img">']
    for y in y_ticks:
        u, v = at(x_low, y)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{v:.1f}" y2="{v:.1f}"/>')
        parts.append(f'<text class="tick" x="{u - 7:.1f}" y="{v + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        u, v = at(x, y_range[0])
        parts.append(f'<text class="tick" x="{u:.1f}" y="{v + 17:.1f}" text-anchor="middle">{x:g}</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{height - 5}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="tick" x="4" y="13">{escape(y_label)}</text>')
    ends = sorted((at(*line[-1])[1], k) for k, (_, line) in enumerate(series) if line)
    place: dict[int, float] = {}
    previous = 0.0
    for v, k in ends:
        place[k] = previous = max(v + 4, previous + 14)
    for k, (name, line) in enumerate(series):
        if not line:
            continue
        path = " ".join(f"{u:.1f},{v:.1f}" for u, v in (at(*point) for point in line))
        parts.append(f'<polyline class="line s{k}" points="{path}"/>')
        if len(line) <= 12:
            dots = (at(*point) for point in line)
            parts += [f'<circle class="dot s{k}" cx="{u:.1f}" cy="{v:.1f}" r="2.6"/>' for u, v in dots]
        u = at(*line[-1])[0]
        parts.append(f'<text class="name s{k}" x="{u + 8:.1f}" y="{place[k]:.1f}">{escape(name)}</text>')
    parts.append("</svg>")
    return "".join(parts)
