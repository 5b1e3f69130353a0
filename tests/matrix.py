"""Runs the tests on every available pair of DGL and torch, each in an environment of its own.

See `make test-matrix`. A pair is tested with the locked versions of everything else
(locks/test.txt) and with the oldest (locks/oldest.txt). Only CPU builds of torch are installed;
other versions are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lock

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-matrix"
DGL = ("1.1.3", "2.1.0")
TESTS = (
    "graph",
    "ops",
    "models",
    "training",
    "checkpoint",
    "preprocess",
    "readers",
    "features",
    "data",
    "evaluation",
    "cli_train",
)
CPU, NO_WHEEL = "CPU build", "no wheel for this Python"


def pins(name: str) -> dict[str, str]:
    """Returns the exact versions of everything except DGL and torch.

    'newest' are those locked for CI, 'oldest' the lower bounds of setup.cfg.
    """
    found = lock.locked("test") if name == "newest" else lock.lower_bounds()
    return {
        package: version
        for package, version in found.items()
        if package not in ("dgl", "torch", "triton")
    }


def offered(versions: list[str]) -> dict[str, str]:
    """Returns whether the index has a CPU build of each torch version, by its label "+cpu".

    Nothing is downloaded or installed. An unlabelled wheel for Linux is a CUDA build: 800 MB (seen
    for 2.2 to 2.14), and several gigabytes with its requirements.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "torch"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = set(re.findall(r"[\d.]+(?:\+\w+)?", done.stdout))
    return {
        v: CPU if f"{v}+cpu" in found else "no CPU build, not installed" if v in found else NO_WHEEL
        for v in versions
    }


def run(dgl: str, torch: str, others: str) -> dict[str, object]:
    """Makes the environment, installs the package into it, and runs the tests."""
    folder = HOME / f"dgl{dgl}-torch{torch}-{others}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    constraints = folder / "versions.txt"
    versions = pins(others) | {"dgl": dgl, "torch": torch}
    constraints.write_text(
        "".join(f"{name}=={version}\n" for name, version in versions.items()), "utf-8"
    )
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", constraints]
    result: dict[str, object] = {"dgl": dgl, "torch": torch, "others": others}
    for words in (["torch"], [ROOT], ["pytest", "hypothesis", "ranx"]):
        done = subprocess.run([*pip, *words], capture_output=True, text=True)
        if done.returncode:
            return result | {
                "outcome": "not installable",
                "why": done.stderr.strip().splitlines()[-1][:300],
            }
    files = [ROOT / "tests" / f"test_{name}.py" for name in TESTS]
    started = time.monotonic()
    # outside the checkout's root, so that the installed package is what is tested
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-rfE", *files]
    done = subprocess.run(
        [str(word) for word in (python, *words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    shutil.rmtree(folder)
    return (
        result
        | {
            "outcome": "passed" if not done.returncode else "failed",
            **counts,
            "seconds": round(time.monotonic() - started),
        }
        | ({"failures": failed[:20]} if failed else {})
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run the tests on every pair of DGL and torch that can be had; JSON on stdout."
    )
    parser.add_argument(
        "--torch", nargs="*", default=["2.2.2", "2.4.1", "2.8.0", "2.13.0", "2.14.1"]
    )
    parser.add_argument("--dgl", nargs="*", default=list(DGL))
    parser.add_argument("--others", nargs="*", default=["newest", "oldest"])
    choice = parser.parse_args()
    builds = offered(choice.torch)
    rows = [
        run(dgl, torch, others)
        for torch, build in builds.items()
        if build == CPU
        for dgl in choice.dgl
        for others in choice.others
    ]
    figures = {"python": sys.version.split()[0], "torch on this index": builds, "runs": rows}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    sys.path.insert(0, str(Path(__file__).parent))
    from figures import record

    record("matrix", figures)
    sys.exit(any(row["outcome"] == "failed" for row in rows))


if __name__ == "__main__":
    main()
