"""Rows of the table: what is promised, and what was found."""

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """A promise and its figures, once measured.

    Attributes:
        what: the thing that is measured; no two rows of a module have the same.
        unit: of `ours` and `reference`.
        goal: what `ratio` has to reach if there is a reference, else what `ours` has to.
        beside: what the reference is.
        higher: whether more is better; else the goal is what is allowed.
        why: the reason why there are no figures.
        measured: date, commit, and machine.
    """

    what: str
    unit: str
    goal: float
    beside: str = ""
    higher: bool = False
    ours: float | None = None
    reference: float | None = None
    ratio: float | None = None
    why: str = ""
    measured: str = ""

    def found(self, *ours: float) -> "Row":
        """The row with the median of some figures."""
        return replace(self, ours=statistics.median(ours))

    def compared(self, ours: Sequence[float], reference: Sequence[float]) -> "Row":
        """The row with medians; the ratio is that of each round, because the machine is not equally fast in all."""
        ratio = statistics.median(one / other for one, other in zip(ours, reference, strict=True))
        return replace(self, ours=statistics.median(ours), reference=statistics.median(reference), ratio=ratio)

    def without(self, why: str) -> "Row":
        return replace(self, why=why)

    @property
    def judged(self) -> float | None:
        """The figure that the goal is for."""
        return self.ratio if self.beside else self.ours

    @property
    def used(self) -> float | None:
        """How much of what is allowed was needed: 1 is just met, and less is better."""
        if self.judged is None:
            return None
        small, large = (self.goal, self.judged) if self.higher else (self.judged, self.goal)
        return small / large if large else 2.0 if small else 0.0

    @property
    def verdict(self) -> str:
        if self.used is None:
            return "not measured"
        return "met" if self.used <= 1 else "missed"


class NotMeasuredError(Exception):
    """What this machine lacks, in a line."""


def rounds(count: int, what: str) -> Iterator[int]:
    """Numbers from 0, and a line that shows how far it is."""
    for number in range(count):
        print(f"\r  {what}: {number + 1} of {count}", end="", file=sys.stderr, flush=True)
        yield number
    print(file=sys.stderr)
