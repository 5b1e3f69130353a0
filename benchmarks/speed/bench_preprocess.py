"""Measures time and peak memory of `dualgnn preprocess` on a log of 25 million interactions.

The log is synthetic and of micro-video shape: 1 million users, 300,000 videos, popularity ∝ (rank +
10)^-0.7 (public micro-video logs fall with exponents of 0.46 to 0.68), user activity log-normal
with a mean of 25 and a median of 14, times over a year, rows in the order of time, some pairs
repeated; 128 visual features per video, a tenth missing. The whole process is measured from
outside: start, reading the CSV, every step, co-occurrence, writing.

    python -m benchmarks.speed.bench_preprocess            25 million rows, one run: minutes
    python -m benchmarks.speed.bench_preprocess --quick    1 million rows, three runs: under a
                                                           minute
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.lib.paths import RESULTS

RESULT = RESULTS / "preprocess.json"
PACKAGES = ("dualgnn-dgl", "numpy", "pyarrow", "scipy", "numba")
LIMIT_SECONDS, LIMIT_BYTES = 300, 8e9


def write_log(folder: Path, rows: int, users: int, items: int, seed: int = 0) -> int:
    """Writes `ratings.csv` and `visual.npy`, and returns the size of the CSV in bytes."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    weight = (np.arange(items) + 10.0) ** -0.7
    item = rng.permutation(items).astype(np.int32)[
        np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(rows), "right")
    ]
    activity = rng.lognormal(sigma=np.sqrt(2 * np.log(25 / 14)), size=users)
    user = np.searchsorted(np.cumsum(activity / activity.sum()), rng.random(rows), "right").astype(
        np.int32
    )
    when = np.sort(rng.integers(1_700_000_000, 1_731_536_000, size=rows))
    table = pa.table(
        {
            "user_id": np.minimum(user, users - 1),
            "item_id": np.minimum(item, items - 1),
            "timestamp": when,
        }
    )
    pa_csv.write_csv(table, folder / "ratings.csv")
    visual = rng.standard_normal((items, 128), dtype=np.float32).astype(np.float16)
    visual[rng.random(items) < 0.1] = np.nan
    np.save(folder / "visual.npy", visual)
    return (folder / "ratings.csv").stat().st_size


def measure(folder: Path) -> dict:
    """Runs the command in a process of its own.

    Returns:
        Seconds, peak resident bytes, seconds of every step, and the command's report.
    """
    command = [sys.executable, "-c", "from dualgnn_dgl.cli.main import main; main()", "preprocess"]
    command += ["--input", str(folder / "raw"), "--data", str(folder / "data"), "--force", "--json"]
    began = time.perf_counter()
    with (folder / "report.json").open("w") as report:
        process = subprocess.Popen(command, stdout=report, stderr=subprocess.PIPE, text=True)
        try:
            marks = [
                (line.strip(), time.perf_counter(), cpu_seconds(process.pid))
                for line in process.stderr
            ]
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"the command failed: {marks[-1][0] if marks else 'without a message'}")
    cpu = usage.ru_utime + usage.ru_stime
    steps = {"starting": (marks[0][1] - began, marks[0][2])}  # step -> seconds, CPU seconds
    for (line, *start), (_, *end) in zip(
        marks, [*marks[1:], ("", began + seconds, cpu)], strict=True
    ):
        # A step may print its progress several times, after a colon.
        step = line.split(":")[0].replace(f"{folder}/", "").replace("input", "opening").strip()
        before = steps.get(step, (0.0, 0.0))
        steps[step] = (before[0] + end[0] - start[0], before[1] + end[1] - start[1])
    return {
        "seconds": seconds,
        "peak_bytes": usage.ru_maxrss * 1024,
        "cpu_seconds": cpu,
        "steps": steps,
        "report": json.loads((folder / "report.json").read_text()),
        "written_bytes": sum(file.stat().st_size for file in (folder / "data").iterdir()),
    }


def cpu_seconds(process: int) -> float:
    """Returns the CPU seconds of a process so far (Linux; 0 elsewhere or after its end)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system time


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 million rows, three runs")
    parser.add_argument("--runs", type=int, help="number of runs (default 1, quick 3)")
    parser.add_argument(
        "--folder",
        help="folder of the log while it is needed (default: the system's temporary folder)",
    )
    arguments = parser.parse_args()
    rows, users, items = (
        (1_000_000, 40_000, 12_000) if arguments.quick else (25_000_000, 1_000_000, 300_000)
    )
    # Other work on the machine raises the seconds, but hardly the CPU seconds.
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        size = write_log(Path(name) / "raw", rows, users, items)
        print(
            f"{rows:,} rows, {users:,} users, {items:,} videos, CSV of {size / 1e6:,.0f} MB",
            file=sys.stderr,
        )
        runs = [measure(Path(name)) for _ in range(arguments.runs or (3 if arguments.quick else 1))]
    seconds = [run["seconds"] for run in runs]
    peak = max(run["peak_bytes"] for run in runs)
    median = statistics.median(seconds)
    cpu = statistics.median(run["cpu_seconds"] for run in runs)
    steps = {
        step: [
            round(statistics.median(run["steps"].get(step, (0.0, 0.0))[part] for run in runs), 2)
            for part in (0, 1)
        ]
        for step in runs[0]["steps"]
    }
    print(f"\n{'step':<38}{'seconds':>9}{'of CPU':>9}")
    for step, taken in steps.items():
        print(f"{step:<38}{taken[0]:>9.1f}{taken[1]:>9.1f}")
    print(
        f"{'whole process':<38}{median:>9.1f}{cpu:>9.1f}   ({min(seconds):.1f} to "
        f"{max(seconds):.1f} s in {len(runs)} runs)"
    )
    print(f"{'peak memory, GB':<38}{peak / 1e9:>9.2f}")
    report = runs[0].pop("report")
    result = {
        "command": " ".join(["python", "benchmarks/speed/bench_preprocess.py", *sys.argv[1:]]),
        "log": {
            "rows": rows,
            "users": users,
            "items": items,
            "csv_bytes": size,
            "shape": " ".join(__doc__.split("\n\n")[1].split()),
        },
        "kept": {
            key: report[key] for key in ("users", "items", "interactions", "rows", "co_occurrence")
        },
        "seconds": {"median": median, "min": min(seconds), "max": max(seconds), "runs": len(runs)},
        "cpu_seconds": cpu,
        "steps": {
            step: dict(zip(("seconds", "cpu_seconds"), taken, strict=True))
            for step, taken in steps.items()
        },
        "peak_bytes": peak,
        "written_bytes": runs[0]["written_bytes"],
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.machine(),
            "load_before": round(load, 2),
        },
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
    }
    if not arguments.quick:
        result["within_limits"] = median < LIMIT_SECONDS and peak < LIMIT_BYTES
    target = RESULT.with_name("preprocess-quick.json") if arguments.quick else RESULT
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
