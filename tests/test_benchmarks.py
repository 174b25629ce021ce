"""What `make bench` writes of rows that are met, missed, and not measured."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks.results import Results
from benchmarks.rows import NotMeasuredError, Row

FAST = Row("Pages <a second>", "pages", 0.9, beside="a & b", higher=True, measured="today").compared(
    [90, 97], [90, 100]
)
SLOW = Row("Slow", "ms", 1.6, beside="fast", measured="today").compared([20, 20, 20], [10, 10, 10])
LOST = Row("Lost", "lost", 0, measured="today")
PARTS = ("first", "second")


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (FAST, "met"),
        (Row("", "", 0.9, beside="b", higher=True).compared([89], [100]), "missed"),
        (Row("", "", 1.6, beside="b").compared([16], [10]), "met"),
        (SLOW, "missed"),
        (LOST.found(0), "met"),
        (LOST.found(1), "missed"),
        (LOST.without("no server"), "not measured"),
        (Row("", "MB", 32).found(30, 32, 90), "met"),
    ],
)
def test_a_row_is_judged_by_its_goal(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_each_row_is_in_table_json_and_chart_with_its_verdict(tmp_path: Path) -> None:
    Results(tmp_path, PARTS).renew("first", [FAST, SLOW, LOST.without("needs wrk")])
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "results.md").open() if "|" in line
    ]
    assert lines[2:] == [
        ["Pages <a second>", "93.5 pages", "95: a & b", "0.98 x", "at least 0.9 x", "met", "1"],
        ["Slow", "20 ms", "10: fast", "2.00 x", "at most 1.6 x", "missed", "1"],
        ["Lost", "", "", "", "at most 0 lost", "not measured", "1"],
    ]
    assert "Lost: needs wrk" in (tmp_path / "results.md").read_text()

    rows = json.loads((tmp_path / "results.json").read_text())["first"]
    assert [(row["ratio"], row["goal"], row["verdict"], row["why"]) for row in rows] == [
        (0.985, 0.9, "met", ""),
        (2, 1.6, "missed", ""),
        (None, 0, "not measured", "needs wrk"),
    ]

    chart = ET.parse(tmp_path / "results.svg").getroot()
    texts = ["".join(element.itertext()) for element in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert {
        "1 of 3 goals met, 1 missed, 1 not measured",
        "Pages <a second>",
        "0.98 x a & b; at least 0.9 x",
        "not measured",
    } <= {*texts}
    assert "missed: 2.00 x fast; at most 1.6 x" in texts
    [limit] = chart.iter("{http://www.w3.org/2000/svg}line")
    bars = {bar.get("class"): bar for bar in chart.iter("{http://www.w3.org/2000/svg}rect")}
    ends = {name: float(bar.get("x", 0)) + float(bar.get("width", 0)) for name, bar in bars.items()}
    assert ends["met"] < float(limit.get("x1", 0)) < ends["missed"]


def test_a_run_of_some_parts_renews_these_and_says_when_each_was_measured(tmp_path: Path) -> None:
    Results(tmp_path, PARTS).renew("first", [FAST, SLOW])
    Results(tmp_path, PARTS).renew("second", [Row("Lost", "lost", 0, measured="tomorrow").found(0)])
    results = Results(tmp_path, PARTS)
    assert results.parts["first"] == [FAST, SLOW]
    assert [line.split("|")[-2].strip() for line in results.table().splitlines()[2:5]] == ["1", "1", "2"]
    assert results.table().endswith("1. today\n2. tomorrow\n")
    assert {"[1] today", "[2] tomorrow", "Slow [1]", "Lost [2]"} <= {
        "".join(element.itertext()) for element in ET.fromstring(results.chart()).iter()
    }


def test_what_fails_costs_only_its_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def incomplete() -> Iterator[Row]:
        yield FAST
        raise NotMeasuredError("needs wrk")

    def broken() -> Iterator[Row]:
        raise RuntimeError(f"{tmp_path} is full")

    parts = {
        "first": ((FAST, LOST), incomplete),
        "second": ((Row("Slow", "ms", 1.6),), broken),
        "third": ((LOST,), lambda: [LOST.found(0)]),
    }
    for name, (rows, measure) in parts.items():
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", SimpleNamespace(ROWS=rows, measure=measure))
    monkeypatch.setattr(command, "PARTS", tuple(parts))
    monkeypatch.setattr(command, "TEMPLATE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])

    with pytest.raises(SystemExit) as ended:
        command.main()

    assert ended.value.code == "not measured: Lost: needs wrk\nnot measured: Slow: it failed: RuntimeError"
    assert f"{tmp_path} is full\n" in capsys.readouterr().err
    table = (tmp_path / "docs/benchmarks/results.md").read_text()
    assert [line.split("|")[-3].strip() for line in table.splitlines() if line.startswith("|")][2:] == [
        "met",
        "not measured",
        "not measured",
        "met",
    ]
    assert str(tmp_path) not in table
