"""Workers as processes of their own, and jobs that write down what they do. `chaos` is for benchmarks too."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq.worker
from sqlalchemy import func, select

from database import broker as database_broker
from database import connect
from database.broker import DatabaseBroker, QueueMessage
from database.server_brokers import open_server_broker

# A process that has imported everything and waits to be forked: a worker starts in a few hundredths of a second.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "dramatiq.brokers.redis", "dramatiq.brokers.rabbitmq", "psycopg"])
PATIENCE = 60


@dataclass(frozen=True)
class Note:
    """What one thread of one process did with a job."""

    what: str
    number: int
    process: int
    thread: int


@dataclass(frozen=True)
class Place:
    """Where messages wait, and the folder in which jobs write down what they do."""

    database: str
    folder: Path
    queue: str = ""
    lease: float = 30

    @contextmanager
    def open(self) -> Iterator[dramatiq.Broker]:
        """A broker with jobs, which is closed in the end."""
        engine = connect(self.database)
        database_broker.LONGEST_PAUSE = 0.02
        if self.queue:
            broker = open_server_broker(self.queue, lambda: None, lease=self.lease)
        else:
            broker = DatabaseBroker(engine, lambda: None, lease=self.lease)
        declare_jobs(broker, self)
        yield broker
        broker.close()
        engine.dispose()

    def send(self, actor: str, *numbers: int, **options: Any) -> None:
        """Send jobs as another process would."""
        with self.open() as broker:
            for number in numbers:
                broker.get_actor(actor).send_with_options(args=(number,), **options)

    def note(self, what: str, number: int) -> None:
        """Add a line, in one write, so that lines of several processes do not mix."""
        journal = os.open(self.folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(journal, f"{what} {number} {os.getpid()} {threading.get_ident()}\n".encode())
        os.close(journal)

    def notes(self) -> list[Note]:
        """All lines, the oldest first."""
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [Note(what, *map(int, numbers)) for what, *numbers in map(str.split, lines)]

    def numbers(self, what: str) -> list[int]:
        """The jobs of which this was noted."""
        return [note.number for note in self.notes() if note.what == what]

    def release(self) -> None:
        """Let the jobs end that wait for it."""
        (self.folder / "released").touch()


def declare_jobs(broker: dramatiq.Broker, place: Place) -> None:
    """The jobs that processes run."""

    def work(number: int, seconds: float = 0) -> None:
        place.note("start", number)
        time.sleep(seconds)
        place.note("end", number)

    def wait(number: int) -> None:
        place.note("start", number)
        while not (place.folder / "released").exists():
            time.sleep(0.005)
        place.note("end", number)

    def die(number: int) -> None:
        place.note("start", number)
        os.kill(os.getpid(), signal.SIGKILL)

    def told(message: dict[str, Any], _retries: object) -> None:
        place.note("told", *message["args"])

    for function in (work, wait, told):
        dramatiq.actor(broker=broker)(function)
    dramatiq.actor(broker=broker, on_retry_exhausted="told")(die)


def run_worker(place: Place, threads: int, grace: float) -> None:
    """What a worker's process does, until SIGTERM."""
    module: Any = dramatiq.worker
    module.CONSUMER_RESTART_DELAY_SECS = 0.1
    join_all = module.join_all

    def join(*arguments: Any) -> None:
        # From here on, no thread takes another job.
        place.note("stopping", 0)
        join_all(*arguments)

    module.join_all = join
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with place.open() as broker:
        worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=50)
        worker.start()
        stopped.wait()
        worker.stop(timeout=round(grace * 1000))


class Workers:
    """Processes that run a place's jobs."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.running: list[ForkServerProcess] = []

    def start(self, *, threads: int = 1, grace: float = PATIENCE) -> ForkServerProcess:
        """Start one more."""
        process = CONTEXT.Process(target=run_worker, args=(self.place, threads, grace), daemon=True)
        process.start()
        self.running.append(process)
        return process

    def keep(self, count: int, *, threads: int = 1) -> None:
        """Do what a supervisor does: start as many as are missing."""
        self.running = [process for process in self.running if process.is_alive()]
        while len(self.running) < count:
            self.start(threads=threads)

    def kill(self, process: ForkServerProcess) -> None:
        """End one at once."""
        process.kill()
        process.join(PATIENCE)
        self.running.remove(process)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self.running):
            self.kill(process)


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never was"
        time.sleep(0.01)


def wait_until_empty(broker: dramatiq.Broker, queue: str = "default") -> None:
    """Wait until no message of a queue is left, apart from failed ones."""
    if isinstance(broker, DatabaseBroker):
        left = select(QueueMessage.id).filter_by(queue=queue, dead=False).limit(1)
        eventually(lambda: not broker.rows(left))
    else:
        broker.join(queue, timeout=PATIENCE * 1000)


@dataclass(frozen=True)
class Damage:
    """What chaos has done: jobs that never ended, that ran twice in processes that lived, or that were set aside."""

    lost: list[int]
    repeated: list[int]
    set_aside: int
    kills: int


def chaos(place: Place, jobs: int, kills: int, *, workers: int = 2, threads: int = 2, seed: int = 0) -> Damage:
    """Run many short jobs from an empty queue, and kill workers at random moments meanwhile."""
    dice = random.Random(seed)
    killed: set[int] = set()
    with place.open() as sender, Workers(place) as running:
        for number in range(jobs):
            sender.get_actor("work").send(number, dice.uniform(0, 0.03))
        # After how many jobs a worker is killed: that spreads the kills over all the work, however fast it is.
        moments = sorted(dice.randrange(jobs) for _ in range(kills))
        deadline = time.monotonic() + PATIENCE + kills  # A job that is lost never ends.
        while ((ended := len(set(place.numbers("end")))) < jobs or moments) and time.monotonic() < deadline:
            running.keep(workers, threads=threads)
            time.sleep(dice.uniform(0, 0.04))
            if moments and moments[0] <= ended:
                moments.pop(0)
                victim = dice.choice(running.running)
                killed.add(victim.pid or 0)
                running.kill(victim)
        # What has ended is deleted a moment later; what is left would run again.
        wait_until_empty(sender)
        set_aside = 0
        if isinstance(sender, DatabaseBroker):
            set_aside = sender.rows(select(func.count()).select_from(QueueMessage))[0][0]
    notes = place.notes()
    ends = {note.number for note in notes if note.what == "end"}
    lived = Counter(note.number for note in notes if note.what == "start" and note.process not in killed)
    return Damage(
        lost=[number for number in range(jobs) if number not in ends],
        repeated=[number for number in range(jobs) if lived[number] > 1],
        set_aside=set_aside,
        kills=len(killed),
    )
