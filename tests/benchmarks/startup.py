"""Start-up time against a trivial typer app in the same environment: `python tests/benchmarks/startup.py [RUNS]`.

Both are run as new processes with compiled modules (.pyc) in place; the least CPU time (user and system) of many runs
is compared, since wall time on a shared machine measures its other users. Exit status 1 where a bar is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TRIVIAL = """
import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main() -> None:
    print("{}")


if __name__ == "__main__":
    app()
"""

QUERY = ["plan", "B/x D, D/x F -> B/x F", "--mesh", "x=4", "--size", "B=64,D=128,F=256", "--json"]


def cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    """User and system time of one process."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} left with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure, print one line per case, and say whether the bars are met."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "trivial.py").write_text(TRIVIAL)
        environment["PYTHONPATH"] = os.pathsep.join([folder, str(Path(__file__).resolve().parents[2])])
        python = [sys.executable, "-m"]
        cases = {
            "trivial --help": [*python, "trivial", "--help"],
            "trivial": [*python, "trivial"],
            "einscale --help": [*python, "einscale", "--help"],
            "einscale plan --json": [*python, "einscale", *QUERY],
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for run in range(runs + 1):
            for name, command in cases.items():
                seconds = cpu_seconds(command, environment)
                if run:  # the first run compiles
                    times[name].append(seconds)
    least = {name: min(measured) for name, measured in times.items()}
    for name, seconds in least.items():
        print(f"{name:22} {1e3 * seconds:6.1f} ms")
    met = True
    for name, base, bar in (("einscale --help", "trivial --help", 1.5), ("einscale plan --json", "trivial", 1.7)):
        ratio = least[name] / least[base]
        met &= ratio <= bar
        print(f"{name} takes {ratio:.2f} times {base}; bar {bar}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
