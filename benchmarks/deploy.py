"""Whether releases come, fail and are rolled back without a failed request, and how long requests and commands take.

`make bench-deploy` runs it, as root. A machine of its own is asked for its front page without a pause, on 12 and on 200
connections, each for at least 50,000 requests, while a release is deployed, three others fail, one is rolled back and
another deployed. The longest request is judged where nothing but a switch goes on, a rollback, beside quiet times
before it. Exits with 1 if a promise is not kept.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

TEMPLATE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TEMPLATE / "tests"))
from deploy.load import load  # noqa: E402
from deploy.machine import running_machine, what_is_missing  # noqa: E402
from deploy.service import Service, installed, steps_of  # noqa: E402

CONNECTIONS = (12, 200)
REQUESTS = 50_000
# Seconds.
QUIET = 20.0
DEPLOY_LIMIT, ROLLBACK_LIMIT = 10.0, 6.0
# Milliseconds, beside twice the p99 of quiet times.
PAUSE_LIMIT = 100.0
COMMANDS = (
    ("deploy second", 0),
    ("deploy import error", 1),
    ("deploy migration error", 1),
    ("deploy not ready", 1),
    ("rollback", 0),
    ("deploy first", 0),
)


def main() -> int:
    """Measure and judge; 1 if a promise is not kept."""
    if reason := what_is_missing():
        print(reason, file=sys.stderr)
        return 1
    with running_machine() as machine, TemporaryDirectory() as folder:
        service, _ = installed(machine, Path(folder))
        kept = [judge_commands(service)]
        kept += [judge_load(service, connections) for connections in CONNECTIONS]
    return 0 if all(kept) else 1


def judge_commands(service: Service) -> bool:
    """How long a deploy and a rollback take while nobody asks for anything."""
    seconds = run(service, "deploy second", 0)
    kept = verdict("deploy beside packages, s", sum(seconds.values()) - seconds["packages"], DEPLOY_LIMIT)
    return verdict("rollback, s", sum(run(service, "rollback", 0).values()), ROLLBACK_LIMIT) and kept


def judge_load(service: Service, connections: int) -> bool:
    """What becomes of requests on so many connections."""
    print(f"{connections} connections")
    run(service, "deploy second", 0)
    with load(service, connections) as quiet:
        time.sleep(QUIET)
    print(f"  quiet: {quiet}")
    with load(service, connections) as switch:
        run(service, "rollback", 0)
    print(f"  rollback: {switch}")
    requests, failed = switch.requests, switch.failed
    while requests < REQUESTS:
        with load(service, connections) as busy:
            for command, code in COMMANDS:
                run(service, command, code)
        print(f"  {len(COMMANDS)} commands: {busy}")
        requests, failed = requests + busy.requests, failed + busy.failed
    kept = verdict(f"failed of {requests} requests", failed, 0)
    return verdict("longest request at a switch, ms", switch.longest, 2 * quiet.p99 + PAUSE_LIMIT) and kept


def run(service: Service, command: str, code: int) -> dict[str, float]:
    """Run a command of the tool that has to end with an exit code: the seconds of its steps."""
    name, _, variant = command.partition(" ")
    done = service.deploy(variant) if variant else service.tool(name)
    if done.returncode != code:
        raise SystemExit(f"{command}: exit {done.returncode}, expected {code}: {done.stdout}{done.stderr}")
    return steps_of(done.stdout)


def verdict(what: str, found: float, limit: float) -> bool:
    """Print a figure beside its limit, and whether it is within it."""
    kept = found <= limit
    print(f"  {what}: {found:.1f}, promised {limit:.1f}: {'kept' if kept else 'NOT KEPT'}", flush=True)
    return kept


if __name__ == "__main__":
    sys.exit(main())
