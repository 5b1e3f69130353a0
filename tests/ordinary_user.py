"""Runs tests as an ordinary user where root runs CI: `make test-user`.

Root may write into read-only folders, so it never sees what an ordinary user sees. The tests run
from a copy of the checkout that the user `nobody` owns, with an environment of their own. They are
skipped, with the reason, where root cannot become that user.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import wheel_job

USER = 65534  # nobody, whether or not the system has a name for it
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
# What these compute depends on no user. All other tests run, those of later files included.
NUMERICS = (
    *(
        "architecture",
        "cooccurrence",
        "cuda",
        "degenerate",
        "docs",
        "evaluation",
        "graph",
        "missing",
        "modality",
        "models",
    ),
    *(
        "newcomers",
        "ops",
        "ops_dense",
        "ops_learned",
        "ops_triton",
        "peers",
        "reduction",
        "references",
        "references_multimodal",
    ),
    *("references_peers", "released", "sampling", "significance", "split", "step", "synthetic"),
    "training",
)


def skip(reason: str) -> None:
    wheel_job.say(f"skipped: {reason}")
    sys.exit(0)


def link(source: str, target: str) -> str:
    """Links a file, which takes neither time nor space, or copies it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def runs(command: Path, **environment: str) -> bool:
    """Returns whether the ordinary user can run a Python of this version with extension modules."""
    words = [command, "-I", "-c", "import ssl, sys; print(sys.version)"]
    try:
        done = subprocess.run(
            words,
            cwd="/",
            env=environment,
            user=USER,
            group=USER,
            extra_groups=[],
            capture_output=True,
            text=True,
        )
    except OSError:
        return False
    return done.stdout.strip() == sys.version


def interpreter(folder: Path) -> tuple[Path, dict[str, str]]:
    """Returns the Python of this environment, or a copy with its libraries.

    A copy is needed where its folder is closed to other users.
    """
    base = Path(sys.base_prefix)
    python = base / "bin" / VERSION
    if runs(python):
        return python, {}
    copy = folder / "python"
    (copy / "bin").mkdir(parents=True)
    shutil.copy2(python, copy / "bin" / VERSION)
    # an environment made by an environment looks for the name that it was called by
    for name in ("python", "python3"):
        (copy / "bin" / name).symlink_to(VERSION)
    ignore = shutil.ignore_patterns("site-packages", "test", "idlelib")
    shutil.copytree(
        base / "lib" / VERSION, copy / "lib" / VERSION, copy_function=link, ignore=ignore
    )
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, copy / "lib")
    python, needed = copy / "bin" / VERSION, {"LD_LIBRARY_PATH": str(copy / "lib")}
    if not runs(python, **needed):
        skip(f"neither the Python in {base} nor a copy of it runs as user {USER}")
    return python, needed


def main() -> None:
    parser = argparse.ArgumentParser(description="Run tests as an ordinary user.")
    parser.add_argument("--jobs", default="1", help="processes to run tests in")
    parser.add_argument("files", nargs="*", help="test files [default: all but the numerical ones]")
    choice = parser.parse_args()
    if os.geteuid():
        skip("this is an ordinary user already, so `make test` shows the same")
    try:
        subprocess.run(["true"], user=USER, group=USER, extra_groups=[], check=True, cwd="/")
    except (OSError, subprocess.SubprocessError) as error:
        skip(f"root cannot become user {USER} here: {error}")

    with tempfile.TemporaryDirectory(prefix="dualgnn-user-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        python, needed = interpreter(folder)
        here = Path(sys.prefix) / "lib" / VERSION / "site-packages"
        packages = folder / "packages"
        # The editable install of this checkout stays behind: the copy is installed instead.
        editable = shutil.ignore_patterns("__editable__*", "dualgnn_dgl*", "*.pth")
        shutil.copytree(here, packages, copy_function=link, ignore=editable)
        checkout, home, scratch = (folder / part for part in ("checkout", "home", "scratch"))
        for path in (checkout, home, scratch):
            path.mkdir()
        wheel_job.source(checkout)
        for path in (checkout, home, scratch, *checkout.rglob("*")):
            os.chown(path, USER, USER)

        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "VIRTUAL_ENV", "XDG_", "MAKE"))
        }
        environment = (
            kept
            | needed
            | {"HOME": str(home), "TMPDIR": str(scratch), "USER": "nobody", "LOGNAME": "nobody"}
        )

        def run(*command: object) -> int:
            words = [str(word) for word in command]
            who: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": [], "umask": 0o022}
            return subprocess.run(
                words, cwd=checkout, env=environment, stdin=subprocess.DEVNULL, **who
            ).returncode

        venv = home / "environment"
        if run(python, "-m", "venv", "--without-pip", venv):
            skip(f"user {USER} cannot make an environment in {home}")
        site = venv / "lib" / VERSION / "site-packages"
        (site / "packages.pth").write_text(f"{packages}\n")
        pip = (
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--disable-pip-version-check",
        )
        if run(venv / "bin" / "python", *pip, "-e", "."):
            sys.exit("the checkout cannot be installed by an ordinary user")
        found = sorted(checkout.glob("tests/test_*.py"))
        files = choice.files or [
            file for file in found if file.stem.removeprefix("test_") not in NUMERICS
        ]
        sys.exit(
            run(
                venv / "bin" / "python",
                "-m",
                "pytest",
                "-rfEs",
                "-n",
                choice.jobs,
                "--basetemp",
                scratch / "t",
                *files,
            )
        )


if __name__ == "__main__":
    main()
