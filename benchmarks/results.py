"""Where the rows go: results.json for the next run, results.md and results.svg for people."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.rows import Row

HEADER = ("", "ours", "reference", "ratio", "goal", "", "run")
ABOUT = """# What is promised, and what was measured

`make bench` measures and writes this page. A ratio is ours beside the reference, measured in turns in one run.

"""
# Pixels.
WIDTH, LINE, TOP = 1080, 24, 72
BARS, LIMIT, END = 370, 530, 610
CHART = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<style>
  text {{ font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }}
  .title {{ font-size: 18px; font-weight: 600 }}
  .quiet {{ fill: #59636e; font-size: 12px }}
  .paper {{ fill: #ffffff; stroke: #d1d9e0 }}
  .met {{ fill: #0969da }}
  .missed {{ fill: #bc4c00 }}
  text.missed {{ font-weight: 600 }}
  .limit {{ stroke: #1f2328; stroke-dasharray: 4 3 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #f0f6fc }}
    .quiet {{ fill: #9198a1 }}
    .paper {{ fill: #0d1117; stroke: #3d444d }}
    .met {{ fill: #4493f8 }}
    .missed {{ fill: #f0883e }}
    .limit {{ stroke: #f0f6fc }}
  }}
</style>
<rect class="paper" x="0.5" y="0.5" width="{inner_width}" height="{inner_height}" rx="6"/>
{content}
</svg>
"""


class Results:
    """The rows of all parts, in a folder."""

    def __init__(self, folder: Path, parts: Iterable[str]) -> None:
        self.folder, file = folder, folder / "results.json"
        stored = json.loads(file.read_text()) if file.exists() else {}
        self.parts = {part: [_row(fields) for fields in stored.get(part, [])] for part in parts}

    def renew(self, part: str, rows: list[Row]) -> None:
        """Take what was found in the place of a part's rows, and write the files."""
        self.parts[part] = rows
        fields = {part: [_fields(row) for row in rows] for part, rows in self.parts.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "results.json").write_text(json.dumps(fields, indent=2) + "\n")
        (self.folder / "results.md").write_text(ABOUT + self.table())
        (self.folder / "results.svg").write_text(self.chart())

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.parts.values() for row in rows]

    @property
    def runs(self) -> list[str]:
        """When, of which commit and where the rows were measured."""
        return list(dict.fromkeys(row.measured for row in self.rows))

    def table(self) -> str:
        """A table in Markdown that can be read as it is, and below it what was not measured, and the runs."""
        lines = [HEADER, *([*_cells(row), str(1 + self.runs.index(row.measured))] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = [[f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines]
        padded.insert(1, ["-" * width for width in widths])
        text = "".join(f"| {' | '.join(line)} |\n" for line in padded)
        if reasons := [f"- {row.what}: {row.why}\n" for row in self.rows if row.why]:
            text += f"\nNot measured:\n\n{''.join(reasons)}"
        return text + "\nRuns:\n\n" + "".join(f"{number}. {run}\n" for number, run in enumerate(self.runs, 1))

    def chart(self) -> str:
        """A bar for each row: how much of what is allowed was needed."""
        rows, runs = self.rows, self.runs
        verdicts = Counter(row.verdict for row in rows)
        others = "".join(f", {verdicts[name]} {name}" for name in ("missed", "not measured") if verdicts[name])
        title = f"{verdicts['met']} of {len(rows)} goals met{others}"
        top = TOP + 16 * len(runs)
        height = top + LINE * len(rows) + 12
        content = [
            _text(16, 32, title, "title"),
            *(_text(16, 52 + 16 * number, f"[{number + 1}] {run}", "quiet") for number, run in enumerate(runs)),
            _text(LIMIT, top - 14, "the goal", "quiet", "middle"),
            _text(BARS, top - 14, "shorter is better", "quiet"),
        ]
        for number, row in enumerate(rows):
            content += _bar(row, top + LINE * number, f"[{runs.index(row.measured) + 1}]" if len(runs) > 1 else "")
        content.append(f'<line class="limit" x1="{LIMIT}" x2="{LIMIT}" y1="{top - 8}" y2="{height - 12}"/>')
        inside = {"inner_width": WIDTH - 1, "inner_height": height - 1, "content": "\n".join(content)}
        return CHART.format(width=WIDTH, height=height, title=escape(title), **inside)


def _row(fields: dict[str, object]) -> Row:
    return Row(**{name: value for name, value in fields.items() if name != "verdict"})  # type: ignore[arg-type]


def _fields(row: Row) -> dict[str, object]:
    return asdict(row) | {"verdict": row.verdict}


def _number(value: float) -> str:
    """A figure with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _cells(row: Row) -> Sequence[str]:
    """What the row is, as a line of a table."""
    goal = _goal(row) if row.beside else f"{_goal(row)} {row.unit}"
    if row.ours is None:
        return row.what, "", row.beside, "", goal, row.verdict
    reference = f"{_number(row.reference)}: {row.beside}" if row.reference is not None else ""
    ratio = f"{row.ratio:.2f} x" if row.ratio is not None else ""
    return row.what, f"{_number(row.ours)} {row.unit}", reference, ratio, goal, row.verdict


def _goal(row: Row) -> str:
    return f"at {'least' if row.higher else 'most'} {_number(row.goal)}{' x' if row.beside else ''}"


def _bar(row: Row, y: int, run: str) -> list[str]:
    """A row of the chart. What is missed says so in words, too: not everybody sees the colours."""
    label = f"{row.what} {run}".strip()
    if row.used is None:
        return [_text(16, y + 14, label), _text(END, y + 14, row.verdict, "quiet")]
    length = max(2, min((LIMIT - BARS) * row.used, END - BARS - 10))
    found = f"{row.ratio:.2f} x {row.beside}" if row.beside else f"{_number(row.ours or 0)} {row.unit}"
    missed = row.verdict == "missed"
    text = f"{'missed: ' if missed else ''}{found}; {_goal(row)}"
    return [
        _text(16, y + 14, label),
        f'<rect class="{row.verdict}" x="{BARS}" y="{y + 3}" width="{length:.0f}" height="14" rx="2"/>',
        _text(END, y + 14, text, "missed" if missed else ""),
    ]


def _text(x: int, y: int, text: str, style: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'
