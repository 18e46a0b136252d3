"""The look of the evaluation's report: one HTML file without script or outside resource, tables of plain values."""

import json
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.6rem auto; max-width: 1280px; padding: 0 1.2rem; color: #1c1e21; }
html { background: #fff; } h1 { font-size: 1.7rem; margin: 0; } h3 { margin: 1.3rem 0 .5rem; font-size: 1.05rem; }
h2 { margin: 2.4rem 0 .8rem; border-bottom: 1px solid #ccd; padding-bottom: .2rem; font-size: 1.3rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 1.1rem; }
.tile { border: 1px solid #dde3ea; border-radius: 8px; padding: .55rem .9rem; background: #f7fafd; min-width: 9.5em; }
.tile b { display: block; font-size: 1.75rem; line-height: 1.2; font-weight: 650; }
.tile span { font-size: 12.5px; color: #555; display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .22rem .5rem; text-align: right; border-bottom: 1px solid #e8e8e8; white-space: nowrap; }
th { vertical-align: bottom; font-weight: 600; color: #333; } th.group { text-align: center; border-bottom: 2px solid #bcd; }
table.dense { font-size: 12px; } table.dense td { padding: .22rem .27rem; }
th.upright { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .4rem .3rem; }
th:first-child, td:first-child { text-align: left; } tbody tr:hover td { background: #f6f6f2; }
tr.ours td { background: #eaf4fd; font-weight: 600; } .note { color: #555; margin: .3rem 0 .7rem; max-width: 78em; }
.warning { background: #fff4e0; border-left: 4px solid #e09f1f; padding: .5rem .8rem; margin-top: 1rem; }
.chart { width: 700px; max-width: 100%; font-size: 12px; }
.gallery { display: flex; flex-wrap: wrap; gap: 14px; } figure { margin: 0; }
figure { max-width: 100%; } figure svg, figure img { max-width: 100%; height: auto; } figure svg { border: 1px solid #ddd; }
figcaption { font-size: 12px; color: #444; } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px; }
summary { cursor: pointer; color: #0b62a4; }
@media (max-width: 480px) { body { margin: .6rem auto; padding: 0 .7rem; overflow-wrap: anywhere; } .tile { min-width: 100%; } }
"""


def page(title: str, body: str) -> str:
    """A complete HTML page."""
    about = '<meta charset="utf-8"><meta name="generator" content="semalign3d"><meta name="viewport" content="width=device-width">'
    head = f"{about}<title>{escape(title)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def tiles(entries: Iterable[tuple[str, Any, str]]) -> str:
    """The numbers that one looks for first: [(name, value or None, HTML of what else)]."""
    cells = (
        f'<div class="tile"><span>{escape(name)}</span><b>{"&ndash;" if value is None else value}</b><span>{more}</span></div>'
        for name, value, more in entries
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def warning(results: dict[str, Any]) -> str:
    """What was skipped; nothing if nothing was."""
    skipped = results["skipped"]
    if not skipped:
        return ""
    shown = "".join(f"<li>{escape(entry['pair'])}: {escape(entry['reason'])}</li>" for entry in skipped[:10])
    more = f"<li>and {len(skipped) - 10} more, see results.json</li>" if len(skipped) > 10 else ""
    text = f"{len(skipped)} pairs were skipped; bad ones count as wrong in every number here."
    return f'<div class="warning">{text}<ul>{shown}{more}</ul></div>'


def details(results: dict[str, Any]) -> str:
    """What results.json holds beside the scores, folded away."""
    parts = ("protocol", "config", "versions", "hardware", "latency", "memory", "seeds", "hashes", "cache", "seconds")
    shown = (f"<details><summary>{key}</summary><pre>{escape(json.dumps(results[key], indent=1))}</pre></details>" for key in parts)
    return note("As in results.json.") + "\n".join(shown)


def section(title: str, html: str) -> str:
    """A section of the page; nothing without content."""
    return f"<h2>{escape(title)}</h2>\n{html}" if html else ""


def table(
    header: Sequence[str | tuple[str, str]], rows: Iterable[Sequence[Any]], ours: Collection[int] = (), upright: Collection[str] = ()
) -> str:
    """HTML table of plain values.

    header: names of columns; a column may be (group, name), and neighbours of one group stand under its name
    rows:   values; floats with one decimal, None as a dash.  ours: indices of rows to highlight
    upright: names of columns that are written upwards, where there are many
    """
    groups = [name[0] if isinstance(name, tuple) else "" for name in header]
    names = [name[1] if isinstance(name, tuple) else name for name in header]
    lines = [f"<tr>{_group_cells(groups)}</tr>"] if any(groups) else []
    lines.append("<tr>" + "".join(f"<th{' class=upright' if name in upright else ''}>{escape(name)}</th>" for name in names) + "</tr>")
    body = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td>{_cell(value)}</td>" for value in row)
        body.append(f"<tr{' class=ours' if index in ours else ''}>{cells}</tr>")
    style = ' class="dense"' if upright else ""
    return f'<div class="scroll"><table{style}><thead>{"".join(lines)}</thead><tbody>{"".join(body)}</tbody></table></div>'


def note(text: str) -> str:
    """A remark; ``text`` is HTML."""
    return f'<p class="note">{text}</p>'


def _group_cells(groups):
    cells, start = [], 0
    for end in range(1, len(groups) + 1):
        if end == len(groups) or groups[end] != groups[start]:
            style = ' class="group"' if groups[start] else ""
            cells.append(f'<th colspan="{end - start}"{style}>{escape(groups[start])}</th>')
            start = end
    return "".join(cells)


def _cell(value):
    if value is None:
        return "&ndash;"
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))
