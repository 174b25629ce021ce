"""Workers that are processes of their own, which are stopped and killed."""

import os
import signal
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from database import connect
from database.broker import QueueMessage
from tests.infrastructure.queue.workers import Place, Workers, chaos, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def hasty(place: Place) -> Place:
    """The queue with a short lease, for workers that are killed."""
    return replace(place, lease=1)


def left(place: Place) -> list[QueueMessage]:
    """What is in the table."""
    engine = connect(place.database)
    with Session(engine) as session:
        rows = list(session.scalars(select(QueueMessage)))
    engine.dispose()
    return rows


@pytest.mark.parametrize("has_time", [True, False])
def test_a_worker_that_is_told_to_stop_finishes_what_it_can_and_gives_back_the_rest(
    place: Place, has_time: bool
) -> None:
    place.send("wait", 0)
    place.send("work", 1, 2, 3)
    with Workers(place) as workers:
        first = workers.start(grace=60 if has_time else 0.01)
        eventually(lambda: place.numbers("start"))
        os.kill(first.pid or 0, signal.SIGTERM)
        eventually(lambda: place.numbers("stopping"))
        if has_time:
            place.release()
        first.join(20)
        assert first.exitcode == 0
        assert place.numbers("end") == [0] * has_time
        assert {(row.owner, row.returns) for row in left(place)} == {(None, 0)}
        place.release()
        workers.start()
        eventually(lambda: not left(place))
    assert sorted(place.numbers("start")) == [0] * (not has_time) + [0, 1, 2, 3]


def test_the_jobs_of_a_worker_that_is_killed_run_again_when_its_lease_has_ended(hasty: Place) -> None:
    hasty.send("wait", 0)
    hasty.send("work", 1, 2, 3)
    with Workers(hasty) as workers:
        first = workers.start()
        eventually(lambda: hasty.numbers("start"))
        workers.kill(first)
        hasty.release()
        workers.start()
        eventually(lambda: set(hasty.numbers("end")) == {0, 1, 2, 3})
    assert Counter(hasty.numbers("start")) == {0: 2, 1: 1, 2: 1, 3: 1}


def test_a_long_job_runs_once_while_others_look_for_work(hasty: Place) -> None:
    hasty.send("wait", 0)
    with Workers(hasty) as workers:
        workers.start()
        eventually(lambda: hasty.numbers("start"))
        workers.start(threads=4)
        claimed_until = left(hasty)[0].due
        eventually(lambda: left(hasty)[0].due > claimed_until + 2 * hasty.lease)
        hasty.release()
        eventually(lambda: not left(hasty))
    assert hasty.numbers("start") == [0]


def test_idle_processes_share_what_comes(place: Place) -> None:
    with Workers(place) as workers:
        for _ in range(2):
            workers.start(threads=8)
        # They have run something just before, and each is at rest again.
        place.send("work", *range(100, 120))
        eventually(lambda: len(place.numbers("end")) == 20 and not left(place))
        place.send("wait", *range(16))
        eventually(lambda: len(place.numbers("start")) == 36)
        by_process = Counter(note.process for note in place.notes() if note.what == "start" and note.number < 100)
        assert sorted(by_process.values()) == [8, 8]
        place.release()
        eventually(lambda: not left(place))


def test_a_job_that_kills_its_workers_is_set_aside_and_takes_no_other_with_it(hasty: Place) -> None:
    place = replace(hasty, lease=0.5)
    innocent = range(1, 51)
    place.send("work", *innocent[:10], kwargs={"seconds": 0.05})
    place.send("die", 0)
    place.send("work", *innocent[10:], kwargs={"seconds": 0.05})

    def over() -> bool:
        workers.keep(1, threads=8)
        return set(place.numbers("end")) == set(innocent) and 0 in place.numbers("told")

    with Workers(place) as workers:
        eventually(over)
        eventually(lambda: len(left(place)) == 1)
    (row,) = left(place)
    assert (row.dead, row.actor) == (True, "die")
    assert "delivered 5 times, and its worker died each time" in str(row.error)
    assert place.numbers("start").count(0) <= 5


def test_random_kills_lose_no_job(hasty: Place) -> None:
    damage = chaos(hasty, jobs=100, kills=20)
    assert (damage.lost, damage.repeated, damage.set_aside, damage.kills) == ([], [], 0, 20)
