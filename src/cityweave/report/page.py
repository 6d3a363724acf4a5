"""The page's frame: style sheet, sections, tables, figures. Everything is inside the one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "–"

STYLE = """
:root { color-scheme: light dark;
  --page:#f6f5f2; --card:#ffffff; --ink:#1d2126; --soft:#626a73; --line:#e2e0da; --accent:#1f6f78; --warn:#a8541a;
  --bad:#a1252f; --good:#2b7a4b; --s0:#1f6f78; --s1:#c0652b; --s2:#5b5ea6; --s3:#8a8f3a; }
@media (prefers-color-scheme: dark) { :root {
  --page:#15181c; --card:#1e2227; --ink:#e8e6e1; --soft:#9aa2ab; --line:#32373e; --accent:#6fc3c9; --warn:#e39a5b;
  --bad:#ef7b82; --good:#7cc596; --s0:#6fc3c9; --s1:#e39a5b; --s2:#a5a8e6; --s3:#c5ca74; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink); line-height:1.5; font-size:16px;
  font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",sans-serif; }
main { max-width:1180px; margin:0 auto; padding:0 24px 72px; }
header { max-width:1180px; margin:0 auto; padding:40px 24px 18px; }
header span { color:var(--accent); font-size:14px; font-weight:600; letter-spacing:.06em; text-transform:uppercase; }
header p { margin:4px 0 0; color:var(--soft); }
h1 { font-size:38px; line-height:1.15; margin:0; font-weight:650; letter-spacing:-.02em; }
h2 { font-size:23px; margin:56px 0 4px; font-weight:650; letter-spacing:-.01em; }
h3 { font-size:16px; margin:22px 0 6px; font-weight:650; }
h2 + p { margin-top:0; color:var(--soft); max-width:74ch; }
figure { margin:0; min-width:0; }
figure img { display:block; width:100%; height:auto; border-radius:8px; background:var(--line); }
figcaption { color:var(--soft); font-size:14px; margin-top:7px; }
.hero img { border-radius:12px; }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(160px,1fr)); gap:12px; margin:20px 0 0; }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:13px 15px 12px; }
.card b { display:block; font-size:25px; font-weight:650; line-height:1.2; font-variant-numeric:tabular-nums;
  letter-spacing:-.01em; }
.card b small { font-size:15px; font-weight:500; color:var(--soft); margin-left:3px; }
.card span { color:var(--soft); font-size:13.5px; display:block; line-height:1.35; margin-top:2px; }
.two { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr)); gap:20px; margin-top:16px; }
.three { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr)); gap:16px; margin-top:16px; }
.one { margin-top:16px; }
.two > div > :first-child { margin-top:0; }
.wrap { overflow-x:auto; margin-top:14px; }
table { border-collapse:collapse; width:100%; font-size:14.5px; background:var(--card); border:1px solid var(--line);
  border-radius:10px; overflow:hidden; font-variant-numeric:tabular-nums; }
th,td { padding:7px 12px; text-align:right; border-top:1px solid var(--line); white-space:nowrap; }
thead th { border-top:0; color:var(--soft); font-weight:550; font-size:13px; }
th:first-child,td:first-child { text-align:left; }
th.text { text-align:left; } td.text { text-align:left; white-space:normal; }
.done { color:var(--good); } .quarantined,.missing,.failed { color:var(--bad); font-weight:600; }
.notice { border-left:4px solid var(--warn); background:var(--card); padding:11px 16px; border-radius:0 8px 8px 0;
  margin-top:18px; }
.legend { display:flex; align-items:center; gap:8px; font-size:13px; color:var(--soft); margin-top:7px;
  flex-wrap:wrap; }
.legend i { display:inline-block; width:120px; height:10px; border-radius:5px; }
.legend i.chip { width:14px; border-radius:3px; margin-left:8px; }
.plot { width:100%; height:auto; display:block; background:var(--card); border:1px solid var(--line);
  border-radius:10px; padding:10px; font-size:13px; }
.plot text { fill:var(--soft); } .plot .label,.plot .value { fill:var(--ink); }
.plot .bar { fill:var(--accent); } .plot .grid { stroke:var(--line); stroke-width:1; }
.plot .line { fill:none; stroke-width:2; } .plot .tick { font-size:12px; } .plot .name { font-size:12.5px; }
.plot .line.s0{stroke:var(--s0)} .plot .line.s1{stroke:var(--s1)} .plot .line.s2{stroke:var(--s2)}
.plot .line.s3{stroke:var(--s3)} .plot .dot.s0,.plot .name.s0{fill:var(--s0)}
.plot .dot.s1,.plot .name.s1{fill:var(--s1)} .plot .dot.s2,.plot .name.s2{fill:var(--s2)}
.plot .dot.s3,.plot .name.s3{fill:var(--s3)}
dl { display:grid; grid-template-columns:max-content 1fr; gap:5px 18px; font-size:14.5px; margin:14px 0 0;
  align-content:start; }
dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
details { margin-top:14px; } summary { cursor:pointer; color:var(--accent); }
pre { background:var(--card); border:1px solid var(--line); border-radius:8px; padding:12px 14px; overflow-x:auto;
  font-size:13px; line-height:1.4; }
@media print { body { background:#fff; } .card,table,.plot { break-inside:avoid; } }
"""


def data_uri(payload: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(payload).decode()}"


def embedded(picture: NDArray[np.uint8], quality: int = 84, lossless: bool = False) -> str:
    """A picture as a data URI: JPEG for scenes, PNG for maps with hard edges."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    if lossless:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=quality, optimize=True, progressive=True)
    return data_uri(buffer.getvalue(), "png" if lossless else "jpeg")


def embedded_file(path: Path) -> str:
    return data_uri(path.read_bytes(), "png" if path.suffix == ".png" else "jpeg")


def figure(uri: str, caption: str, alt: str, legend: str = "", kind: str = "") -> str:
    """`caption` may hold markup; `alt` is plain text."""
    name = f' class="{kind}"' if kind else ""
    return f'<figure{name}><img src="{uri}" alt="{escape(alt)}">{legend}<figcaption>{caption}</figcaption></figure>'


def legend(gradient: str, low: str, high: str, *chips: tuple[str, str]) -> str:
    """A colour bar between two labels, and single colours with theirs."""
    extra = "".join(f'<i class="chip" style="background:{colour}"></i>{escape(text)}' for colour, text in chips)
    return f'<div class="legend">{escape(low)}<i style="background:{gradient}"></i>{escape(high)}{extra}</div>'


def card(value: str, unit: str, text: str) -> str:
    small = f"<small>{escape(unit)}</small>" if unit and value != UNKNOWN else ""
    return f'<div class="card"><b>{escape(value)}{small}</b><span>{escape(text)}</span></div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = ()) -> str:
    """Cells may hold markup: callers escape what comes from outside."""
    cells = "".join(
        f'<th class="text">{escape(name)}</th>' if k in text_columns else f"<th>{escape(name)}</th>"
        for k, name in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="text">{cell}</td>' if k in text_columns else f"<td>{cell}</td>" for k, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wrap"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: dict[str, Any]) -> str:
    items = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in values.items())
    return f"<dl>{items}</dl>"


def number(value: float | None, digits: int = 3) -> str:
    """A figure for reading: significant digits, thousands apart, a dash for what is not known."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int) or abs(value) >= 10**digits:
        return f"{round(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}g}"


def share(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{100 * value:.1f}"


def measured(text: str, unit: str) -> str:
    """A figure with its unit, or the dash alone."""
    return text if text == UNKNOWN else f"{text} {unit}"


@dataclass
class Page:
    kind: str
    title: str
    subtitle: str
    parts: list[str] = field(default_factory=list)

    def section(self, heading: str, lead: str = "") -> None:
        text = f"<p>{escape(lead)}</p>" if lead else ""
        self.parts.append(f"<h2>{escape(heading)}</h2>{text}")

    def add(self, *markup: str) -> None:
        self.parts += [part for part in markup if part]

    def grid(self, columns: str, *markup: str) -> None:
        """`columns`: one, two or three."""
        if any(markup):
            cells = "".join(f"<div>{part}</div>" for part in markup if part)
            self.parts.append(f'<div class="{columns}">{cells}</div>')

    def html(self) -> str:
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head><body>"
            f"<header><span>{escape(self.kind)}</span><h1>{escape(self.title)}</h1><p>{self.subtitle}</p></header>"
            f"<main>{''.join(self.parts)}</main></body></html>\n"
        )
