"""How long generating a project takes, beside a template of one file: the floor that Cookiecutter sets.

`make bench` runs it. All are whole `cookiecutter … --no-input` processes, taken in turns; the figures are medians of
the processor's time, that of the hooks included, which depends less than a clock on what else the machine does.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
ROUNDS = 15


def one_file_template(folder: Path) -> Path:
    """A template that renders a single line."""
    project = folder / "one" / "{{cookiecutter.project_slug}}"
    project.mkdir(parents=True)
    (project / "README.md").write_text("{{cookiecutter.project_slug}}\n")
    (project.parent / "cookiecutter.json").write_text('{"project_slug": "one"}')
    return project.parent


def seconds(template: Path, output: Path, *options: str) -> float:
    """How much of the processor's time the command takes that users type."""
    command = [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "-o", str(output), *options]
    start = time_of_children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time_of_children() - start


def time_of_children() -> float:
    """What all processes that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        one = one_file_template(folder)
        runs: dict[str, list[float]] = {"one file": [], "this template": [], "its hooks left out": []}
        for number in range(ROUNDS):
            output = folder / str(number)
            runs["one file"].append(seconds(one, output))
            runs["this template"].append(seconds(TEMPLATE, output / "a"))
            runs["its hooks left out"].append(seconds(TEMPLATE, output / "b", "--accept-hooks", "no"))
        medians = {name: statistics.median(times) for name, times in runs.items()}
    for name, median in medians.items():
        print(f"{name:20} {median * 1000:6.0f} ms  {median / medians['one file']:5.2f} x")
    hooks = medians["this template"] - medians["its hooks left out"]
    print(f"{'both hooks':20} {hooks * 1000:6.0f} ms")


if __name__ == "__main__":
    main()
