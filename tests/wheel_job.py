"""Does the whole job from a wheel installed as a user installs it: `make test-wheel`.

Builds the sdist from the tracked files and the wheel from the sdist, has twine check both, installs
the wheel into a clean environment outside the checkout, with the newest dependencies that setup.cfg
admits, and runs the commands in an empty folder. Only torch is the locked version, so that its CPU
build is taken where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import lock

ROOT = Path(__file__).resolve().parent.parent
SDIST = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
MODULE = "import dualgnn_dgl, dualgnn_dgl.cli as cli; print(dualgnn_dgl.__file__, cli.__file__)"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(*command: object, folder: Path) -> str:
    """Runs a command without this environment's settings of Python.

    Returns its stdout, ends the script if it fails.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "MAKE"))
    }
    started = time.monotonic()
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    say(f"{time.monotonic() - started:6.1f} s  {Path(words[0]).name} {' '.join(words[1:])[:100]}")
    if done.returncode:
        raise SystemExit(f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def source(folder: Path) -> Path:
    """Copies the tracked files, so that nothing else of the checkout can get into the archives."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def archives(folder: Path, twine: str | None) -> tuple[Path, Path]:
    """Builds the sdist, and the wheel from the unpacked sdist alone."""
    checkout, unpacked, dist = (folder / name for name in ("checkout", "unpacked", "dist"))
    for path in (checkout, unpacked, dist):
        path.mkdir()
    run(sys.executable, "-c", SDIST, dist, folder=source(checkout))
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(unpacked, filter="data")
    modules = {
        path.relative_to(checkout)
        for part in ("dualgnn_dgl", "cli")
        for path in (checkout / part).rglob("*.py")
    }
    others = {"README.md", "LICENSE", "setup.cfg", "pyproject.toml", "dualgnn_dgl/py.typed"}
    lacking = {*others, *map(Path.as_posix, modules)} - names
    if lacking:
        raise SystemExit(f"the sdist lacks {sorted(lacking)}")
    (unpacked,) = unpacked.iterdir()
    options = (
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "-q",
        "-w",
        dist,
    )
    run(sys.executable, "-m", "pip", "wheel", *options, unpacked, folder=folder)
    (wheel,) = dist.glob("*.whl")
    if twine:
        run(twine, "check", "--strict", sdist, wheel, folder=folder)
    return sdist, wheel


def install(python: str, wheel: Path, folder: Path) -> Path:
    """Installs the wheel and the newest dependencies into a new environment.

    Returns the environment's bin folder.
    """
    home = folder / "environment"
    run(python, "-m", "venv", home, folder=folder)
    binaries = home / "bin"
    pip = (binaries / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    torch = f"torch=={lock.TORCH}"
    run(*pip, torch, folder=folder)
    run(*pip, torch, f"{wheel}[tune]", folder=folder)
    run(binaries / "python", "-m", "pip", "check", "--disable-pip-version-check", folder=folder)
    found = json.loads(
        run(binaries / "python", "-m", "pip", "list", "--format", "json", folder=folder)
    )
    installed = {
        re.sub(r"[-_.]+", "-", package["name"]).lower(): package["version"].partition("+")[0]
        for package in found
    }
    locked = {
        name: version for part in ("torch", "test") for name, version in lock.locked(part).items()
    }
    other = [
        name for name in sorted(installed) if installed[name] != locked.get(name, installed[name])
    ]
    newer = [f"{name} {installed[name]} (locked: {locked[name]})" for name in other]
    say(f"{len(installed)} packages; not the locked version: {', '.join(newer) or 'none'}")
    return binaries


def job(binaries: Path, folder: Path) -> None:
    """Runs every step from raw data to lists, and checks the outputs of each one."""
    folder.mkdir()
    home = binaries.parent
    for path in run(binaries / "python", "-I", "-c", MODULE, folder=folder).split():
        if not Path(path).is_relative_to(home):
            raise SystemExit(f"not the installed package: {path}")

    def dualgnn(*words: object) -> str:
        return run(binaries / "dualgnn", *words, folder=folder)

    cpu = ("--gpu", "-1")
    dualgnn("preprocess")
    dualgnn("train", "--epochs", 2, *cpu)
    metrics = json.loads(dualgnn("eval", "--topk", 10, "--json", *cpu))["metrics"]
    chance = 10 / 2947  # recall of ten of the demo's videos at random
    assert metrics["recall@10"] > 3 * chance, metrics
    before = json.loads(dualgnn("recommend", "--user", "u0042", "--k", 10, "--json", *cpu))[
        "users"
    ][0]["items"]
    assert len(before) == 10, before
    watched = [entry["item"] for entry in before[:3]]
    lines = [f"{user},{item}" for user in ("u0042", "newbie") for item in watched]
    (folder / "tuesday.csv").write_text("\n".join(["user,item", *lines]) + "\n", "utf-8")
    dualgnn("update", "--input", "tuesday.csv")
    words = ("recommend", "--run", "runs/dualgnn-updated", "--k", 10, "--json", *cpu)
    for user in ("u0042", "newbie"):
        after = [
            entry["item"]
            for entry in json.loads(dualgnn(*words, "--user", user))["users"][0]["items"]
        ]
        assert len(after) == 10 and not set(after) & set(watched), (
            f"{user} is shown what they have watched"
        )
    dualgnn("train", "--data", "data-updated", "--run", "runs/new", "--epochs", 1, *cpu)
    dualgnn("tune", "--model", "lightgcn", "--trials", 1, "--epochs", 1, *cpu)
    dualgnn("tune", "--model", "lightgcn", "--trials", 2, "--epochs", 1, *cpu)
    dualgnn("train", "--config", "studies/lightgcn/run.toml", "--run", "runs/lightgcn", *cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Do the whole job from a wheel installed with the newest dependencies."
    )
    parser.add_argument(
        "--python", default=sys.executable, help="the Python to make the clean environment with"
    )
    parser.add_argument(
        "--twine", help="twine's command; without it the archives' metadata stay unchecked"
    )
    choice = parser.parse_args()
    twine = str(Path(choice.twine).absolute()) if choice.twine else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dualgnn-wheel-") as name:
        folder = Path(name)
        _, wheel = archives(folder, twine)
        job(install(choice.python, wheel, folder), folder / "empty")
    say(f"the wheel did the whole job in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
