"""Where the lines, bars and labels of charts are."""

from datetime import UTC, datetime

import pytest

from app.ops.charts import BOTTOM, LEFT, RIGHT, TOP, Chart, depth_chart, throughput_chart

START = datetime(2026, 1, 31, 23, 31, tzinfo=UTC)


def points(line: str) -> list[tuple[float, float]]:
    pairs = (point.split() for point in line.removeprefix("M").split(" L"))
    return [(float(x), float(y)) for x, y in pairs]


def test_a_line_goes_through_all_minutes_between_the_axes() -> None:
    [line] = depth_chart(START, [0, 5, 10, 5]).lines
    found = points(line)
    assert [y for _, y in found] == [BOTTOM, (TOP + BOTTOM) / 2, TOP, (TOP + BOTTOM) / 2]
    width = (RIGHT - LEFT) / 4
    assert [x for x, _ in found] == [LEFT + width * (number + 0.5) for number in range(4)]


def test_a_line_has_a_gap_where_nothing_is_known_and_a_dot_for_one_minute() -> None:
    chart = depth_chart(START, [None, 1, 2, None, 2, None, None, 0, 0, 1])
    assert [len(points(line)) for line in chart.lines] == [2, 2, 3]
    first, second = points(chart.lines[1])
    assert first == second
    assert chart.summary == "Latest 1, most 2 at 23:33. Not known for 4 of 10 minutes."


def test_nothing_known_is_said_and_not_drawn() -> None:
    chart = depth_chart(START, [None] * 60)
    assert chart.lines == []
    assert chart.summary == "Not known: no scheduler has run in this hour."


def test_bars_stand_on_the_axis_and_failed_ones_on_the_others() -> None:
    chart = throughput_chart(START, [4, 0, 1, 0], [6, 0, 0, 2])
    assert [(bar.kind, round(bar.y + bar.height, 1)) for bar in chart.bars] == [
        ("done", BOTTOM),
        ("failed", chart.bars[0].y),
        ("done", BOTTOM),
        ("failed", BOTTOM),
    ]
    assert chart.bars[1].y == TOP
    unit = (BOTTOM - TOP) / 10
    assert [bar.height for bar in chart.bars] == pytest.approx([4 * unit, 6 * unit, unit, 2 * unit], abs=0.11)
    assert all(LEFT < bar.x < bar.x + bar.width < RIGHT for bar in chart.bars)
    assert chart.bars[0].x + chart.bars[0].width < chart.bars[2].x
    assert chart.summary == "5 done, 8 failed in this hour."


@pytest.mark.parametrize(
    ("most", "labels"),
    [
        (0, ["0", "1", "2"]),
        (2, ["0", "1", "2"]),
        (3, ["0", "2", "4"]),
        (5, ["0", "5", "10"]),
        (41, ["0", "50", "100"]),
        (1001, ["0", "1,000", "2,000"]),
        (150_000, ["0", "100k", "200k"]),
        (3_000_000, ["0", "2M", "4M"]),
    ],
)
def test_the_axis_ends_at_a_round_number_and_counts_whole_jobs(most: int, labels: list[str]) -> None:
    for chart in (depth_chart(START, [most]), throughput_chart(START, [most], [0])):
        assert [label.text for label in chart.levels] == labels
        assert [label.at for label in chart.levels] == [BOTTOM, (TOP + BOTTOM) / 2, TOP]


def test_quarters_of_an_hour_are_named_below_their_minute() -> None:
    charts: list[Chart] = [depth_chart(START, [1] * 60), throughput_chart(START, [1] * 60, [0] * 60)]
    for chart in charts:
        assert [label.text for label in chart.times] == ["23:45", "00:00", "00:15", "00:30"]
    assert charts[0].times[0].at == points(charts[0].lines[0])[14][0]
