"""Numbers of the last hour as drawings: where each line, bar and label is. Templates make SVG of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

MINUTE = timedelta(minutes=1)
# A drawing and the room for labels around it, in the SVG's own unit.
WIDTH, HEIGHT = 440, 156
LEFT, RIGHT, TOP, BOTTOM = 46, 418, 24, 130
# Minutes between two times on the axis.
QUARTER = 15


class Label(NamedTuple):
    """What an axis says, and where on it."""

    at: float
    text: str


class Bar(NamedTuple):
    """A part of a minute's bar; `kind` is what it counts."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """A drawing, and what it says in words. `lines` are path data, each without a gap."""

    unit: str
    summary: str
    times: list[Label]
    levels: list[Label]
    lines: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)


def depth_chart(start: datetime, waiting: Sequence[int | None]) -> Chart:
    """How many jobs waited at the start of each minute. Nothing is drawn where that is not known.

    Args:
        start: the first minute.
        waiting: a number for each minute.
    """
    known = [(value, index) for index, value in enumerate(waiting) if value is not None]
    most, when = max(known, key=lambda pair: pair[0], default=(0, 0))
    top = _round_up(most)
    lines, points = [], list[str]()
    for index, value in enumerate([*waiting, None]):
        if value is not None:
            points.append(f"{_x(index + 0.5, len(waiting))} {_y(value, top)}")
        elif points:
            # A line of no length is drawn as a dot.
            lines.append(f"M{' L'.join(points if points[1:] else points * 2)}")
            points = []
    if not known:
        summary = "Not known: no scheduler has run in this hour."
    else:
        summary = f"Latest {known[-1][0]:,}, most {most:,} at {start + when * MINUTE:%H:%M}."
        if missing := len(waiting) - len(known):
            summary += f" Not known for {missing} of {len(waiting)} minutes."
    return Chart("jobs", summary, _times(start, len(waiting)), _levels(top), lines=lines)


def throughput_chart(start: datetime, done: Sequence[int], failed: Sequence[int]) -> Chart:
    """How many attempts ended in each minute, the failed ones on top of the others.

    Args:
        start: the first minute.
        done: a number for each minute.
        failed: the same.
    """
    top = _round_up(max(map(sum, zip(done, failed, strict=True)), default=0))
    width = _x(0.8, len(done)) - LEFT
    bars = []
    for index, (good, bad) in enumerate(zip(done, failed, strict=True)):
        x = _x(index + 0.1, len(done))
        for kind, below, count in (("done", 0, good), ("failed", good, bad)):
            if count:
                y = _y(below + count, top)
                bars.append(Bar(kind, x, y, round(width, 1), round(_y(below, top) - y, 1)))
    summary = f"{sum(done):,} done, {sum(failed):,} failed in this hour."
    return Chart("jobs per minute", summary, _times(start, len(done)), _levels(top), bars=bars)


def _round_up(value: int) -> int:
    """The end of an axis: a number whose half is one, too."""
    scale = 1
    while True:
        for step in (2, 4, 10):
            if value <= step * scale:
                return step * scale
        scale *= 10


def _x(minute: float, minutes: int) -> float:
    return round(LEFT + minute * (RIGHT - LEFT) / minutes, 1)


def _y(value: float, top: int) -> float:
    return round(BOTTOM - value * (BOTTOM - TOP) / top, 1)


def _times(start: datetime, minutes: int) -> list[Label]:
    moments = [(index, start + index * MINUTE) for index in range(minutes)]
    return [
        Label(_x(index + 0.5, minutes), f"{moment:%H:%M}") for index, moment in moments if moment.minute % QUARTER == 0
    ]


def _levels(top: int) -> list[Label]:
    return [Label(_y(value, top), _short(value)) for value in (0, top // 2, top)]


def _short(value: int) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:,}"
