"""What an install brings: the same from a checkout, a source archive and a wheel, and no top-level
package `cli`.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import lock
import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def files(folder: Path, prefix: str) -> set[str]:
    """Every module below a folder, named as it lies in an install."""
    return {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, built from a copy so that the checkout stays as it is."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("sdist")
    for name in SHIPPED:
        shutil.copy(ROOT / name, copy)
    for name in ("dualgnn_dgl", "cli"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(
        sys.executable,
        "-c",
        f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})",
        folder=copy,
    )
    (built,) = out.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked archive and nothing else: so the archive is complete."""
    source, out = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("wheel")
    with tarfile.open(archive) as handle:
        handle.extractall(source, filter="data")
    (folder,) = source.iterdir()
    options = (
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "-q",
        "-w",
        out,
    )
    run(sys.executable, "-m", "pip", "wheel", *options, folder, folder=out)
    (built,) = out.glob("*.whl")
    return built


def test_packages_are_the_folders(config: configparser.ConfigParser) -> None:
    listed = set(config["options"]["packages"].split())
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in (ROOT / "dualgnn_dgl").rglob("__init__.py")
    }
    assert listed == folders | {"dualgnn_dgl.cli"}
    without_init = {path.parent for path in (ROOT / "dualgnn_dgl").rglob("*.py")} - {
        path.parent for path in (ROOT / "dualgnn_dgl").rglob("__init__.py")
    }
    assert not without_init, f"no __init__.py in {without_init}"


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as handle:
        names = set(handle.namelist())
    expected = files(ROOT / "dualgnn_dgl", "dualgnn_dgl") | files(ROOT / "cli", "dualgnn_dgl/cli")
    assert expected <= names
    assert "dualgnn_dgl/py.typed" in names
    assert {name.split("/")[0] for name in names} == {
        "dualgnn_dgl",
        wheel.name.split("-py3")[0] + ".dist-info",
    }


def test_the_archive_holds_the_command_line(archive: Path) -> None:
    with tarfile.open(archive) as handle:
        names = {name.partition("/")[2] for name in handle.getnames()}
    assert files(ROOT / "cli", "cli") <= names
    assert set(SHIPPED) <= names


def test_the_wheel_works_where_the_checkout_is_not(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as handle:
        handle.extractall(tmp_path / "site")
        (entry,) = [name for name in handle.namelist() if name.endswith("entry_points.txt")]
        assert "dualgnn = dualgnn_dgl.cli.main:main" in handle.read(entry).decode()
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.argv = ['dualgnn', "
        f"'--version']\n"
        "import dualgnn_dgl, dualgnn_dgl.cli.main as main\n"
        "print(dualgnn_dgl.__file__, main.__file__)\n"
        "main.main()\n"
    )
    printed = run(sys.executable, "-I", "-c", script, folder=tmp_path)
    first, second, version = printed.split(maxsplit=2)
    assert Path(first).is_relative_to(tmp_path) and Path(second).is_relative_to(tmp_path)
    assert re.fullmatch(r"dualgnn \d+\.\d+\.\d+, (DGL \d|no DGL).*\s*", version)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["archive", "wheel"])
def test_installed_in_a_clean_environment_it_does_its_job(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """pip puts the archive or the wheel into a new environment that borrows this one's
    dependencies, and nothing else.
    """
    import trial

    built = request.getfixturevalue(kind)
    home = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", home, folder=tmp_path)
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    needed = ("torch", "dgl", "click", "pip", "setuptools")
    borrowed = {str(Path(importlib.util.find_spec(name).origin).parents[1]) for name in needed}
    # folders named in a .pth come without their own .pth files, so an editable install of the
    # checkout stays out
    (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    options = (
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--ignore-installed",
        "--disable-pip-version-check",
        "-q",
    )
    run(home / "bin" / "python", "-m", "pip", "install", *options, built, folder=tmp_path)
    assert (site / "dualgnn_dgl" / "py.typed").exists() and (
        site / "dualgnn_dgl" / "cli" / "main.py"
    ).exists()
    where = "import dualgnn_dgl, dualgnn_dgl.cli as c; print(dualgnn_dgl.__file__, c.__file__)"
    files = run(home / "bin" / "python", "-I", "-c", where, folder=tmp_path).split()
    assert all(Path(file).is_relative_to(site) for file in files)
    (tmp_path / "log.csv").write_bytes(trial.logs()["log.csv"])
    command = home / "bin" / "dualgnn"
    run(command, "preprocess", "--input", "log.csv", folder=tmp_path)
    if kind == "wheel":  # the same files: the archive has shown the rest
        return
    run(
        command,
        "train",
        "--model",
        "bprmf",
        "--epochs",
        "1",
        "--gpu",
        "-1",
        "--run",
        "run",
        folder=tmp_path,
    )
    assert "recall" in run(
        command, "eval", "--run", "run", "--topk", "3", "--gpu", "-1", folder=tmp_path
    )
    assert "user3" in run(
        command,
        "recommend",
        "--run",
        "run",
        "--user",
        "user3",
        "--k",
        "3",
        "--gpu",
        "-1",
        folder=tmp_path,
    )


def test_this_install_has_no_top_level_cli(tmp_path: Path) -> None:
    script = (
        "import importlib.util as u; print(u.find_spec('cli'), "
        "u.find_spec('dualgnn_dgl.cli.main') is not None)"
    )
    assert run(sys.executable, "-I", "-c", script, folder=tmp_path).split() == ["None", "True"]


def test_every_third_party_import_is_declared(config: configparser.ConfigParser) -> None:
    names = {"scikit-learn": "sklearn"}
    # what some command asks for by name where it is absent
    optional = config["options.extras_require"]["tune"]
    lines = [*config["options"]["install_requires"].split("\n"), optional]
    required = [re.split(r"[<>=;\[ ]", line)[0] for line in lines if line]
    declared = {names.get(name, name.replace("-", "_")) for name in required}
    imported = set()
    for path in [*(ROOT / "dualgnn_dgl").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        imported |= set(
            re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
    # Triton comes with torch's CUDA builds and is done without elsewhere
    ours = {"dualgnn_dgl", "triton"}
    third_party = {
        name for name in imported - set(sys.stdlib_module_names) - ours if is_module(name)
    }
    assert third_party <= declared, f"add to install_requires: {sorted(third_party - declared)}"
    # _dgl.py imports dgl by its name; DGL 1.1.3 needs packaging and does not ask for it
    hidden = {"dgl", "packaging"}
    unused = declared - third_party - hidden
    assert not unused, f"nobody imports {sorted(unused)}"


def is_module(name: str) -> bool:
    """Whether an import line found by its look is one.

    Prose in a docstring may begin with 'from' as well.
    """
    import importlib.util

    return importlib.util.find_spec(name) is not None


LOCKS = sorted(path.stem for path in (ROOT / "locks").glob("*.txt"))


def pinned() -> dict[str, str]:
    """Versions of all locks that `make test` installs from."""
    return {
        name: version
        for part in ("build", "torch", "test", "fuzz")
        for name, version in lock.locked(part).items()
    }


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_package_by_version_and_hash(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    found = lock.entries(text)
    for package, (line, hashes) in found.items():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+(\+cpu)?( ; .+)?", line), line
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes), (
            package
        )
    others = [
        line
        for line in text.split("\n")
        if line and not line.startswith(("#", "    --hash=", "-r "))
    ]
    assert len(others) == len(found), "two entries of one package"
    assert "://" not in text and "--index" not in text and "--find-links" not in text, (
        "a lock names no index"
    )


def test_the_locks_agree() -> None:
    """A package has one version, whichever lock installs it.

    The oldest, the tools and the documentation's are separate.
    """
    for name in set(LOCKS) - {"oldest", "tools", "docs", "torch-cpu"}:
        for package, version in lock.locked(name).items():
            assert pinned()[package] == version
    assert lock.locked("torch-cpu") == {"torch": pinned()["torch"] + "+cpu"}
    assert not set(lock.entries((ROOT / "locks/test.txt").read_text())) & set(lock.locked("run")), (
        "locked twice"
    )


def test_the_locks_satisfy_the_bounds() -> None:
    from packaging.requirements import Requirement

    for key in ("run", "test", "tune", "fuzz"):
        for requirement in map(Requirement, lock.requirements(key)):
            version = pinned().get(requirement.name)
            assert version, f"run `make lock`: {requirement.name} is not locked"
            assert requirement.specifier.contains(version), (
                f"run `make lock`: {requirement} is not met by {version}"
            )


def test_the_oldest_lock_is_the_lower_bounds() -> None:
    from packaging.version import Version

    oldest, bounds = lock.locked("oldest"), lock.lower_bounds()
    assert len(bounds) > 10
    for name, bound in bounds.items():
        assert Version(oldest[name]) == Version(bound), (
            f"run `make lock`: the lower bound of {name} is {bound}"
        )


def test_the_locks_name_all_that_is_installed_with_them() -> None:
    """Also the dependencies of dependencies: `make` installs from the locks with --no-deps."""
    from importlib.metadata import requires, version

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = {canonicalize_name(name): pin for name, pin in pinned().items()}
    if any(
        version(name).partition("+")[0] != pins.get(name, "none")
        for name in ("dgl", "numpy", "torch")
    ):
        pytest.skip("other versions than the locked ones are installed here (make test-dgl113)")
    waiting = [
        Requirement(line) for key in ("run", "test", "tune") for line in lock.requirements(key)
    ]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        assert name in pins, f"run `make lock`: {name} is not locked"
        if name.startswith(("nvidia", "cuda")):  # the CPU build of torch needs none of them
            continue
        waiting += [Requirement(line) for line in requires(name) or []]
    assert len(seen) > 60


def test_ci_installs_by_hash_alone() -> None:
    """No recipe of the Makefile that CI runs calls pip in another way than the three that are
    safe.
    """
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    safe = {
        name: re.search(rf"^{name} = (.+)$", text, re.MULTILINE) for name in ("LOCKED", "PROJECT")
    }
    assert safe["LOCKED"] and {"--require-hashes", "--only-binary", "--no-deps"} <= set(
        safe["LOCKED"][1].split()
    )
    assert safe["PROJECT"] and {"--no-build-isolation", "--no-deps", "--no-index"} <= set(
        safe["PROJECT"][1].split()
    )
    calls = [
        line
        for line in text.split("\n")
        if "-m pip " in line and not re.match("LOCKED|PROJECT", line)
    ]
    assert all("-m pip check" in line for line in calls), calls


def test_setuptools_is_pinned_where_pip_builds_in_isolation() -> None:
    import tomllib

    from packaging.requirements import Requirement

    (line,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"][
        "requires"
    ]
    assert Requirement(line).specifier.contains(pinned()["setuptools"])
    assert "<" in line, (
        "an upper bound: a user's pip builds the sdist with the newest setuptools that this line "
        "admits"
    )


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_knows_its_targets() -> None:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name != "MFLAGS"
    }
    targets = ("demo", "test", "docs", "test-wheel", "test-dgl113", "test-user", "lock")
    done = subprocess.run(
        ["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, env=clean, timeout=60
    )
    assert done.returncode == 0, done.stderr
    verbs = ("dualgnn preprocess", "dualgnn train", "dualgnn eval --topk 10", "dualgnn recommend")
    for words in (*verbs, "ruff check", "codespell", "mkdocs build --strict", "pytest"):
        assert words in done.stdout
