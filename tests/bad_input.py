"""Damages input in thousands of cases: each makes files, runs one command, and is judged.

See `python tests/bad_input.py --help`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trial
from bad_artefacts import artefact
from mutations import TOKENS, VALUES, spoil

from dualgnn_dgl import data as prepared

MEMORY = 12 * 2**30  # of addresses: what a header claims must not be taken


def place(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files, by name."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def case(seed: int, world: trial.World, folder: Path) -> tuple[str, str]:
    """Runs case `seed` in an empty folder, and returns the case and its fault or ''."""
    draw = random.Random(seed)
    kinds = {
        "log": 40,
        "features": 14,
        "new": 4,
        "items": 10,
        "folder": 8,
        "data": 10,
        "run": 8,
        "config": 5,
        "values": 3,
    }
    (kind,) = draw.choices(list(kinds), list(kinds.values()))
    return {
        "log": spoilt_log,
        "features": spoilt_features,
        "new": spoilt_new_items,
        "items": spoilt_items,
        "folder": spoilt_folder,
        "data": spoilt_data,
        "run": spoilt_run,
        "config": spoilt_config,
        "values": spoilt_values,
    }[kind](draw, world, folder)


def spoilt_log(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    files = trial.logs()
    name = draw.choice(list(files))
    parts = {name: files[name]} | trial.OPTIONS.get(name, {})
    target = draw.choice(list(parts))
    parts[target] = spoil(target, parts[target], draw)
    place(folder, parts)
    source = folder if name in trial.OPTIONS else folder / name
    words: list[Any] = [
        "--input",
        source,
        "--data",
        folder / "out",
        "--k-core",
        draw.choice((0, 0, 0, 2, 5)),
    ]
    if draw.random() < 0.2:
        words += draw.choice(
            (
                ["--split", "time-user"],
                ["--min-rating", "2"],
                ["--time-col", ""],
                ["--rating-col", ""],
                ["--split", "leave-one-out"],
            )
        )
    return f"log {name}", preprocessed(words, folder, [folder / part for part in parts])


def spoilt_features(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    files = trial.feature_files()
    name = draw.choice(list(files))
    (folder / name).write_bytes(spoil(name, files[name], draw))
    words: list[Any] = [
        "--input",
        world.folder / "log.csv",
        "--features",
        folder / name,
        "--data",
        folder / "out",
    ]
    if name.endswith(".npy") and draw.random() < 0.8:
        words += ["--items", world.folder / draw.choice(list(trial.item_files()))]
    if draw.random() < 0.2:
        words += ["--feature-dim", draw.choice((1, 2, 3, 9))]
    return f"features {name}", preprocessed(words, folder, [])


def spoilt_new_items(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Damages features of new videos, as wide as the data's were before the reduction."""
    files = trial.feature_files()
    # the array's rows are called by their numbers, which no video is
    name = draw.choice(("visual.npy", "acoustic.csv"))
    content = files[name].replace(b"\nv", b"\nnew") if name == "acoustic.csv" else files[name]
    (folder / name).write_bytes(spoil(name, content, draw))
    words = [
        "recommend",
        "--run",
        world.run,
        "--data",
        world.data,
        "--user",
        "user3",
        "--k",
        3,
        "--gpu",
        -1,
        "--json",
    ]
    done = trial.call(*words, "--new-items", folder / name)
    wrong = trial.fault(done)
    if not wrong and not done.code and len(json.loads(done.out)["users"][0]["items"]) != 3:
        wrong = "another number of videos than asked for"
    return f"new {name}", wrong


def spoilt_items(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    files = trial.item_files()
    name = draw.choice(list(files))
    (folder / name).write_bytes(spoil(name, files[name], draw))
    words: list[Any] = [
        "--input",
        world.folder / "log.csv",
        "--items",
        folder / name,
        "--data",
        folder / "out",
    ]
    if draw.random() < 0.5:
        words += ["--features", world.folder / "visual.npy"]
    return f"items {name}", preprocessed(words, folder, [])


def spoilt_folder(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Makes a folder with a log, features and items, with several possible faults at once."""
    files = {
        "log.csv": trial.logs()["log.csv"],
        "visual.npy": trial.feature_files()["visual.npy"],
        "items.csv": trial.item_files()["items.csv"],
    }
    for _ in range(draw.choice((1, 2))):
        name = draw.choice(list(files))
        files[name] = spoil(name, files[name], draw)
    if draw.random() < 0.5:
        extra = draw.choice(list(trial.logs() | trial.feature_files() | trial.item_files()))
        files[extra] = (trial.logs() | trial.feature_files() | trial.item_files())[extra]
    place(folder, files)
    if draw.random() < 0.1:
        (folder / draw.choice(("sub.csv", "x.npy", "a.parquet"))).mkdir(exist_ok=True)
    return "folder", preprocessed(["--input", folder, "--data", folder / "out"], folder, [])


def preprocessed(words: list[Any], folder: Path, text: list[Path]) -> str:
    """Runs preprocess and judges it.

    Rows add up, the folder loads, and a slow reader reads the same.
    """
    done = trial.call("preprocess", *words, "--json")
    wrong = trial.fault(done, folder / "out")
    if wrong or done.code:
        return wrong
    report = json.loads(done.out)
    rows = report["rows"]
    if rows["read"] != rows["kept"] + sum(rows["dropped"].values()):
        return f"rows do not reconcile: {rows}"
    dataset = prepared.load(folder / "out")
    pairs = {
        (str(dataset.user_ids[u]), str(dataset.item_ids[i]))
        for split in prepared.SPLITS
        for u, i in zip(
            getattr(dataset, split).user.tolist(),
            getattr(dataset, split).item.tolist(),
            strict=True,
        )
    }
    if len(pairs) != rows["kept"]:
        return f"{len(pairs)} pairs in the folder, {rows['kept']} in the report"
    return other_reading(report, pairs, rows, text) if text else ""


def other_reading(
    report: dict[str, Any], pairs: set[tuple[str, str]], rows: dict[str, Any], text: list[Path]
) -> str:
    """Returns the faults that a second, line by line reading of a text log finds.

    They are rows dropped without a warning, and other pairs.
    """
    if (
        report["input"]["kind"] in ("Parquet", "MicroLens pairs", "LightGCN adjacency lists")
        or len(text) > 1
    ):
        return ""
    raw = text[0].read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if raw.decode("utf-8", "replace").encode() != raw:
        return ""  # Latin-1, which only MovieLens' files may be
    lines = [line for line in re.split(rb"\r\n|\r|\n", raw.removeprefix(b"\xef\xbb\xbf")) if line]
    headed = report["input"]["kind"] != "MovieLens without a header"
    expected = len(lines) - headed
    if rows["read"] != expected and not any("lines" in warning for warning in report["warnings"]):
        return f"{expected} lines hold rows, {rows['read']} were read, and nothing says so"
    if set(rows["dropped"]) - {"repeated pair"} or rows["read"] != expected:
        return ""
    first = lines[0].decode("utf-8", "replace")
    mark = next(
        (mark for mark in (("::",) if not headed else ()) + ("\t", ";", ",") if mark in first), None
    )
    if mark is None:
        return ""
    decoded = [line.decode("utf-8", "replace") for line in lines]
    quoted = text[0].suffix in (".csv", ".tsv")
    table = (
        [line.split("::") for line in decoded]
        if mark == "::"
        else list(
            csv.reader(
                io.StringIO("\n".join(decoded)),
                delimiter=mark,
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            )
        )
    )
    if headed:
        names = [name.split(":")[0].strip().lower().replace("_", "") for name in table[0]]
        places = [
            [n for n, name in enumerate(names) if name in known]
            for known in (("user", "userid"), ("item", "itemid", "movieid"))
        ]
        if any(len(place) != 1 for place in places):
            return ""
        at = [place[0] for place in places]
    else:
        at = [0, 1]
    slow = {
        tuple(
            undotted_pairs[n]
            for undotted_pairs in [[row[at[0]].strip(), row[at[1]].strip()]]
            for n in (0, 1)
        )
        for row in table[headed:]
    }
    for side in (0, 1):  # a column of "1.0", "2.0" throughout loses its ".0"
        if all(re.fullmatch(r"[0-9]+[.]0", pair[side]) for pair in slow):
            slow = {
                tuple(text[:-2] if n == side else text for n, text in enumerate(pair))
                for pair in slow
            }
    return (
        ""
        if slow == pairs
        else f"other pairs than a slow reading finds: {sorted(slow ^ pairs)[:6]}"
    )


def spoilt_data(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    shutil.copytree(world.data, folder / "data")
    name = draw.choice(sorted(file.name for file in world.data.iterdir()))
    file = folder / "data" / name
    if draw.random() < 0.05:
        file.unlink()
    else:
        file.write_bytes(spoil(name, file.read_bytes(), draw))
    if draw.random() < 0.6:
        return f"data {name}", same_metrics(world, folder / "data", world.run)
    done = trial.call(
        "train",
        "--data",
        folder / "data",
        "--run",
        folder / "run",
        "--model",
        "mostpop",
        "--gpu",
        -1,
        "--json",
    )
    wrong = trial.fault(done, folder / "run")
    if (
        not wrong
        and not done.code
        and json.loads(done.out)["data"]["hash"]
        != json.loads((world.data / prepared.MANIFEST).read_text())["hash"]
    ):
        wrong = "an altered data set was trained on"
    return f"data {name} (train)", wrong


def spoilt_run(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    shutil.copytree(world.run, folder / "run")
    name = draw.choice(
        sorted(file.name for file in world.run.iterdir() if file.suffix not in (".png",))
    )
    file = folder / "run" / name
    if draw.random() < 0.05:
        file.unlink()
    else:
        file.write_bytes(spoil(name, file.read_bytes(), draw))
    if draw.random() < 0.7:
        return f"run {name}", same_metrics(world, world.data, folder / "run")
    done = trial.call(
        "recommend",
        "--run",
        folder / "run",
        "--data",
        world.data,
        "--user",
        "user3",
        "--k",
        3,
        "--gpu",
        -1,
        "--json",
    )
    wrong = trial.fault(done)
    if not wrong and not done.code:
        good = trial.call(
            "recommend",
            "--run",
            world.run,
            "--data",
            world.data,
            "--user",
            "user3",
            "--k",
            3,
            "--gpu",
            -1,
            "--json",
        )
        if json.loads(good.out)["users"] != json.loads(done.out)["users"]:
            wrong = "an altered run recommends otherwise"
    return f"run {name} (recommend)", wrong


def same_metrics(world: trial.World, data: Path, run: Path) -> str:
    """Runs eval: an error in one line, or exactly the metrics of the undamaged files."""
    done = trial.call(
        "eval", "--run", run, "--data", data, "--topk", 3, "--bootstrap", 0, "--gpu", -1, "--json"
    )
    wrong = trial.fault(done)
    if wrong or done.code:
        return wrong
    value = {
        key: value for key, value in json.loads(done.out).items() if key not in ("run", "data")
    }
    return "" if value == world.metrics else f"altered files give other metrics: {value}"


def spoilt_config(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    content = world.config.read_bytes()
    for _ in range(draw.choice((1, 1, 3))):
        content = spoil("run.toml", content, draw)
    (folder / "run.toml").write_bytes(content)
    return "config", trial.fault(
        trial.call("train", "--config", folder / "run.toml", "--print-config")
    )


def spoilt_values(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Draws any value for any option of any command; a command may only refuse it."""
    value = str(
        draw.choice([*VALUES, *(token.decode("utf-8", "replace") for token in TOKENS)])
    ).replace("\0", "")
    inputs = ["--input", world.folder / "log.csv"]
    run = ["--run", world.run, "--data", world.data, "--gpu", -1]
    command, words, options = draw.choice(
        (
            (
                "preprocess",
                [*inputs, "--check"],
                (
                    "--user-col",
                    "--item-col",
                    "--rating-col",
                    "--time-col",
                    "--split-col",
                    "--separator",
                    "--features",
                    "--items",
                    "--min-rating",
                    "--k-core",
                    "--split",
                    "--seed",
                    "--feature-dim",
                    "--cooc-weight",
                    "--cooc-top",
                    "--input",
                ),
            ),
            (
                "train",
                ["--print-config"],
                (
                    "--model",
                    "--epochs",
                    "--lr",
                    "--batch-size",
                    "--patience",
                    "--seed",
                    "--set",
                    "--config",
                ),
            ),
            (
                "eval",
                run,
                (
                    "--topk",
                    "--split",
                    "--mask",
                    "--per-user",
                    "--bootstrap",
                    "--seed",
                    "--gpu",
                    "--run",
                    "--data",
                ),
            ),
            (
                "recommend",
                [*run, "--user", "user3"],
                ("--user", "--k", "--gpu", "--run", "--data", "--all"),
            ),
        )
    )
    option = draw.choice(options)
    if option in ("--set",):
        value = f"{draw.choice(('lr', 'epochs', 'width', 'metric', 'seed', 'nosuch', ''))}={value}"
    return f"{command} {option} {value[:40]!r}", trial.fault(
        trial.call(command, *words, option, value)
    )


def run_cases(
    first: int,
    count: int,
    folder: Path,
    seen: Path | None = None,
    one: Callable[..., tuple[str, str]] = case,
) -> dict[str, Any]:
    """Runs cases first … first + count − 1.

    `seen` has the number of the current one, for a process that dies.
    """
    world = trial.world(Path(tempfile.mkdtemp(dir=folder)))
    kinds: Counter[str] = Counter()
    failures = []
    for seed in range(first, first + count):
        if seen is not None:
            seen.write_text(str(seed))
        place_here = Path(tempfile.mkdtemp(dir=folder))
        what = "the harness"
        try:
            what, wrong = one(seed, world, place_here)
        except BaseException:
            wrong = traceback.format_exc()[-3000:]
        kinds[what.split()[0]] += 1
        if wrong:
            failures.append({"seed": seed, "what": what, "wrong": wrong})
        shutil.rmtree(place_here, ignore_errors=True)
    return {"cases": count, "kinds": dict(kinds), "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run spoilt-input cases and print what went wrong, as JSON."
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seen", type=Path, help="file that names the case under way")
    parser.add_argument(
        "--artefacts", action="store_true", help="the cases of bad_artefacts.py instead"
    )
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        one = artefact if options.artefacts else case
        json.dump(
            run_cases(options.first, options.count, Path(folder), options.seen, one), sys.stdout
        )


if __name__ == "__main__":
    main()
