"""Writes locks/*.txt, the exact versions and hashes that `make` installs: `make lock`.

setup.cfg holds the bounds; this script resolves them with uv and keeps every version that is
already locked and still fits.
`make lock UPGRADE="numpy pandas"` moves those packages to their newest versions, `make lock
    UPGRADE=all` moves all of them.

    build.txt        pip and setuptools
    torch-cpu.txt    torch without CUDA, which the package index of PyPI does not have for Linux
    torch.txt        torch as PyPI has it, with the CUDA libraries that it needs on Linux
    run.txt          what else the package needs
    test.txt         what the tests and the linters need, on top of run.txt
    fuzz.txt         what `make fuzz` needs, on top of test.txt
    tools.txt        uv and twine, installed separately
    docs.txt         what builds the documentation, installed separately
    oldest.txt       every lower bound of setup.cfg with what the tests need, for `make test-dgl113`
                     (Linux, Python 3.11)

Each version carries the hashes of all its files, so the same lock serves Python 3.11 and 3.12 on
x86_64 and arm64. Only wheels are locked: an sdist runs its setup.py with whatever build tools it
asks for.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
# Torch moves by hand, because its CPU build is no file of PyPI's. It has a lock of its own: of two
# files of one version, pip prefers the one whose hash the index states, which is the CUDA build.
# `pip hash FILE` prints the hash of a downloaded file.
TORCH = "2.13.0"
# cp311, manylinux_2_28_x86_64
CPU_BUILDS = ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"]
TOOLS = ["uv", "twine"]
CUDA = re.compile(r"((nvidia|cuda)-.*|torch|triton)$")
# An entry stays if one of these systems needs it; the rest of its marker is kept as it is.
SYSTEMS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": platform,
        "platform_machine": machine,
    }
    | {
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[platform],
        "os_name": "posix",
        "extra": "",
    }
    for python in ("3.11", "3.12")
    for platform, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]
Entries = dict[str, tuple[str, list[str]]]  # name → (requirement line, hashes)


def entries(text: str) -> Entries:
    """Parses a lock: the requirement and the hashes of every package."""
    found: Entries = {}
    for block in re.split(r"\n(?=[a-z0-9])", "\n" + text.replace("\\\n", " ")):
        line, *hashes = re.split(
            r"\s+--hash=", re.sub(r"^\s*#.*$", "", block, flags=re.MULTILINE).strip()
        )
        if "==" in line:
            found[line.partition("==")[0]] = (line.strip(), [part.strip() for part in hashes])
    return found


def locked(name: str) -> dict[str, str]:
    """Returns the exact versions of locks/{name}.txt and the locks it includes, by package."""
    text = (LOCKS / f"{name}.txt").read_text("utf-8")
    included = [locked(other) for other in re.findall(r"^-r (\w+)\.txt$", text, re.MULTILINE)]
    own = {
        package: re.split(r"[ ;]", line.partition("==")[2])[0]
        for package, (line, _) in entries(text).items()
    }
    return {package: version for part in (*included, own) for package, version in part.items()}


def requirements(key: str) -> list[str]:
    """Returns the requirements of setup.cfg: the package's own ("run") or an extra's."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    text = (
        config["options"]["install_requires"]
        if key == "run"
        else config["options.extras_require"][key]
    )
    return [line for line in text.split("\n") if line]


def lower_bounds() -> dict[str, str]:
    """Returns every lower bound of the package's own requirements except torch's, by package."""
    found = [re.match(r"([\w-]+)>=([\w.]+)", line) for line in requirements("run")]
    return {bound[1]: bound[2] for bound in found if bound and bound[1] != "torch"}


def compile_lock(
    wanted: list[str], keep: dict[str, str], fixed: dict[str, str], *options: str
) -> Entries:
    """Resolves requirements with uv.

    Args:
        wanted: Requirements.
        keep: Versions to prefer where they fit.
        fixed: Versions that must be taken.
        options: Further options of `uv pip compile`.
    """
    from packaging.requirements import Requirement

    with tempfile.TemporaryDirectory() as folder:
        asked, constraints, out = (
            Path(folder) / name for name in ("asked.in", "fixed.txt", "out.txt")
        )
        asked.write_text("\n".join(wanted) + "\n", "utf-8")
        for path, pins in ((constraints, fixed), (out, keep)):
            path.write_text(
                "".join(f"{name}=={version}\n" for name, version in pins.items()), "utf-8"
            )
        command = [
            Path(sys.executable).parent / "uv",
            "pip",
            "compile",
            "-q",
            "--no-config",
            "--no-header",
            "--no-annotate",
        ]
        command += [
            "--generate-hashes",
            "--only-binary",
            ":all:",
            "--python-version",
            "3.11",
            *options,
        ]
        subprocess.run(
            [str(word) for word in (*command, "-c", constraints, "-o", out, asked)], check=True
        )
        found = {}
        # a package can have one entry a system
        for block in re.split(r"\n(?=[a-z0-9])", "\n" + out.read_text("utf-8")):
            for name, (line, hashes) in entries(block).items():
                marker = Requirement(line).marker
                if marker is None or any(marker.evaluate(system) for system in SYSTEMS):
                    if name in found:
                        raise SystemExit(f"{name} needs two versions: fix one in setup.cfg")
                    found[name] = (line, hashes)
    return found


def write(name: str, found: Entries, note: str, include: str = "") -> None:
    """Writes locks/{name}.txt."""
    lines = [f"# Written by `make lock`: {note}."]
    if include:
        lines.append(f"-r {include}.txt")
    for line, hashes in (found[package] for package in sorted(found)):
        lines += (
            [f"{line} \\"]
            + [f"    --hash={digest} \\" for digest in hashes[:-1]]
            + [f"    --hash={hashes[-1]}"]
        )
    (LOCKS / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def without(found: Entries, *others: Entries) -> Entries:
    """Returns the entries that are in none of the other locks."""
    return {
        name: entry for name, entry in found.items() if not any(name in other for other in others)
    }


def write_all(upgrade: list[str]) -> None:
    """Resolves setup.cfg and writes every lock."""
    known = [path.stem for path in LOCKS.glob("*.txt")]
    old = {name: locked(name) for name in known}
    kept = {
        name: {
            package: version
            for package, version in pins.items()
            if "all" not in upgrade and package not in upgrade
        }
        for name, pins in old.items()
    }
    separate = ("oldest", "tools", "docs", "torch-cpu")
    newest = {
        package: version
        for name, pins in kept.items()
        if name not in separate
        for package, version in pins.items()
    }
    build_system = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"][
        "requires"
    ]
    groups = {"build": ["pip", *build_system], "run": requirements("run")}
    groups["test"] = [*groups["run"], *requirements("test"), *requirements("tune")]
    groups["fuzz"] = [*groups["test"], *requirements("fuzz")]
    every = compile_lock(
        [*groups["build"], *groups["fuzz"]], newest, {"torch": TORCH}, "--universal"
    )
    fixed = {name: line.partition("==")[2].split(" ")[0] for name, (line, _) in every.items()}
    build, run, test, fuzz = (
        compile_lock(wanted, {}, fixed, "--universal") for wanted in groups.values()
    )
    torch = {name: entry for name, entry in run.items() if CUDA.match(name)}
    run = without(run, torch, build)
    # Triton is in torch.txt because the CUDA build needs it and in test.txt because the tests of
    # the kernels do.
    test = without(
        test, run, build, {name: entry for name, entry in torch.items() if name != "triton"}
    )
    write("build", build, "what installs everything else")
    write("run", run, "what the package needs besides torch")
    write("torch", torch, "PyPI's build of torch and what it needs")
    cpu = {"torch": (f"torch=={TORCH}+cpu", [f"sha256:{digest}" for digest in CPU_BUILDS])}
    write("torch-cpu", cpu, "torch without CUDA")
    write("test", test, "what the tests and the linters need", include="run")
    write("fuzz", without(fuzz, run, test, build, torch), "what `make fuzz` needs", include="test")
    write(
        "tools",
        compile_lock(TOOLS, kept.get("tools", {}), {}, "--universal"),
        "what writes the locks and checks the archives",
    )
    write(
        "docs",
        compile_lock(requirements("docs"), kept.get("docs", {}), {}, "--universal"),
        "what builds the documentation",
    )

    bounds = lower_bounds() | {"torch": TORCH}
    wanted = [*requirements("run"), *requirements("test")]
    platform = ("--python-platform", "x86_64-manylinux_2_28")
    oldest = compile_lock(
        wanted, kept.get("oldest", {}), bounds | {"setuptools": fixed["setuptools"]}, *platform
    )
    oldest = {
        name: entry for name, entry in oldest.items() if not CUDA.match(name) or name == "triton"
    }
    write(
        "oldest",
        without(oldest, build),
        "every lower bound of setup.cfg, for Linux and Python 3.11",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write locks/*.txt.")
    parser.add_argument(
        "--upgrade",
        nargs="*",
        default=[],
        metavar="NAME",
        help="packages to move to the newest version, or all",
    )
    write_all(parser.parse_args().upgrade)


if __name__ == "__main__":
    main()
