"""What becomes of 500 jobs whose workers are killed 100 times with SIGKILL.

Four workers with two threads each are started again as soon as they are killed. A kill comes at a random moment after
one of 100 randomly drawn jobs has started, so that the kills are spread over all of the jobs, and hits a worker that
has already started one: all are at work, not still starting. Leases are two seconds long.

A job that ran twice was running when its worker was killed if it had not ended then. One that had ended less than 0.1 s
before may have been on its way back to the queue, which cannot be seen from here: such jobs are counted apart.
"""

import random
import subprocess
import time
from dataclasses import dataclass, field

from database.broker_url import open_broker
from database.messages import DEAD
from database.outbox import OutboxBroker

from benchmarks.queue.places import BROKERS, Place, Places, kill, lines, show, table_of, wait_until

JOBS = 500
KILLS = 100
WORKERS = 4
LEASE = 2
JUST_ENDED = 0.1


@dataclass
class Run:
    """One run of a job."""

    worker: int
    started: float
    ended: float | None = None


@dataclass
class Outcome:
    """What came of all jobs, by how each that was run again had been left."""

    lost: int = 0
    set_aside: int = 0
    again: int = 0
    left: dict[str, int] = field(default_factory=lambda: {"running": 0, "just ended": 0, "not running": 0})


def runs(place: Place) -> dict[int, list[Run]]:
    """All runs of each job, by its number, in order."""
    found: dict[int, list[Run]] = {}
    for event, number, worker, at in lines(place.record):
        if event == "start":
            found.setdefault(int(number), []).append(Run(int(worker), float(at)))
        else:
            # The last one of this worker that has not ended: it may run the same job twice.
            run = next(run for run in reversed(found[int(number)]) if run.worker == int(worker) and not run.ended)
            run.ended = float(at)
    return found


def kill_at_random(places: Places, place: Place) -> dict[int, float]:
    """Work until all jobs are done; returns when which process was killed."""

    def start() -> subprocess.Popen[str]:
        return places.start(place, "-m", "benchmarks.queue.actors", "work", environ={"LEASE": str(LEASE)})

    killed: dict[int, float] = {}
    workers = [start() for _ in range(WORKERS)]

    def at_work() -> list[subprocess.Popen[str]]:
        seen = {int(line[2]) for line in lines(place.record)}
        return [worker for worker in workers if worker.pid in seen]

    for mark in sorted(random.sample(range(1, JOBS + 1), KILLS)):
        wait_until(lambda mark=mark: len(runs(place)) >= mark and at_work(), f"start of {mark} jobs")  # type: ignore[misc]
        time.sleep(random.uniform(0, 0.05))
        victim = random.choice(at_work())
        kill(victim)
        killed[victim.pid] = time.time()
        workers[workers.index(victim)] = start()
    return killed


def wait_for_the_rest(name: str, place: Place, killed: dict[int, float]) -> None:
    """Until nothing is left that could run: every job has ended, what runs again has, and the queue is empty."""
    broker = open_broker(place.queue, table_of(place), poll_interval=0.2)

    def ended() -> bool:
        every = [run for each in runs(place).values() for run in each]
        done = all(any(run.ended for run in each) for each in runs(place).values())
        return done and all(run.ended or run.worker in killed for run in every)

    def empty() -> bool:
        # RabbitMQ does not tell what workers hold; what they start of it has to end as well.
        on_server = broker.count("default") if isinstance(broker, OutboxBroker) else ()
        return not broker.table.count("default") and not any(on_server)

    try:
        wait_until(lambda: ended() and empty(), "an empty queue", 30)
    except TimeoutError as error:
        print(f"{name}: {error}")
    broker.close()


def judge(place: Place, killed: dict[int, float]) -> Outcome:
    """Compare what jobs have written down with what was killed."""
    found = runs(place)
    outcome = Outcome(lost=JOBS, set_aside=table_of(place).count("default", DEAD))
    for all_runs in found.values():
        outcome.lost -= any(run.ended for run in all_runs)
        outcome.again += len(all_runs) > 1
        for run in all_runs[:-1]:
            end = killed.get(run.worker)
            if end and not run.ended:
                outcome.left["running"] += 1
            elif end and run.ended and end - run.ended < JUST_ENDED:
                outcome.left["just ended"] += 1
            else:
                outcome.left["not running"] += 1
    return outcome


def measure(places: Places) -> None:
    """Print the table."""
    rows = []
    for name in BROKERS:
        if place := places.fresh(name):
            places.send(place, "actors", "work", JOBS)
            start = time.monotonic()
            killed = kill_at_random(places, place)
            wait_for_the_rest(name, place, killed)
            outcome = judge(place, killed)
            counts = (outcome.lost, outcome.set_aside, outcome.again, *outcome.left.values())
            rows.append([name, str(len(killed)), *map(str, counts), f"{time.monotonic() - start:.0f}"])
            places.kill_all()
    header = ["", "kills", "lost", "set aside", "run again", "running", "just ended", "not running", "seconds"]
    show(f"kills: {JOBS} jobs, {KILLS} kills", header, rows, "0 lost, 0 run again that were not running")
