"""Damages artefacts that commands continue from, and files that arrive later.

The artefacts are checkpoints, studies, experiments and new logs. `bad_input.py --artefacts` runs
the cases. A command that continues must end as with undamaged files, or in one line.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import trial
from mutations import TOKENS, VALUES, spoil

from dualgnn_dgl import data as prepared

SMALL = ("--epochs", 2, "--gpu", -1, "--set", "width=3")
CHECKPOINTS = ("--checkpoint-every", 1, "--keep-last", 2, "--keep-checkpoints")
ONE_LINE = (
    '{"op_code": 4, "worker_id": "x"}',
    "[]",
    "3",
    '"a"',
    "null",
    "{}",
    '{"op_code": 99}',
    "{",
    "NaN",
)


@dataclass(frozen=True)
class Begun:
    """Folders that commands continue from, made once per process.

    They are a training, a study and an experiment, each with its result.
    """

    folder: Path
    weights: bytes
    trials: list[Any]
    summary: dict[str, Any]


def train_words(world: trial.World, run: Path) -> list[Any]:
    return [
        "train",
        "--data",
        world.data,
        "--run",
        run,
        "--model",
        "bprmf",
        *SMALL,
        *CHECKPOINTS,
        "--resume",
    ]


def tune_words(world: trial.World, study: Path) -> list[Any]:
    return [
        "tune",
        "--data",
        world.data,
        "--model",
        "bprmf",
        *SMALL,
        "--study",
        study,
        "--trials",
        2,
        "--json",
    ]


def holes_words(world: trial.World, out: Path) -> list[Any]:
    chosen = (
        "--models",
        "vbpr",
        "--rates",
        "0,.5",
        "--seeds",
        1,
        "--strategies",
        "mask",
        "--stages",
        "test-only",
    )
    return [
        "robustness",
        "--data",
        world.data,
        "--out",
        out,
        *chosen,
        "--epochs",
        1,
        "--gpu",
        -1,
        "--json",
    ]


@cache
def begun(world_folder: Path, data: Path) -> Begun:
    """Makes the folders; the arguments are those of the world, which cannot be hashed itself."""
    world = trial.World(world_folder, data, world_folder / "run", world_folder / "run.toml", {})
    folder = world_folder / "begun"
    folder.mkdir()
    found = {}
    for name, words in (
        ("train", train_words(world, folder / "run")),
        ("tune", tune_words(world, folder / "study")),
        ("holes", holes_words(world, folder / "holes")),
    ):
        done = trial.call(*words, limit=600)
        assert done.code == 0, done
        found[name] = done.out
    weights = (folder / "run" / "weights.safetensors").read_bytes()
    # its checkpoints stay: as if it had been killed while the run was saved
    shutil.rmtree(folder / "run")
    return Begun(folder, weights, json.loads(found["tune"])["trials"], json.loads(found["holes"]))


def spoil_one(folder: Path, draw: random.Random) -> str:
    """Damages, empties or removes one file of a folder, and returns its name."""
    file = draw.choice(
        sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    )
    kind = draw.random()
    if kind < 0.07:
        file.unlink()
    elif kind < 0.12:
        other = draw.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        file.write_bytes(other.read_bytes())
    elif file.suffix == ".jsonl" and kind < 0.5:
        lines = file.read_text().split("\n")
        at = draw.randrange(len(lines))
        lines[at] = draw.choice(
            (
                *ONE_LINE,
                spoil("a.json", lines[at].encode() or b"{}", draw).decode("utf-8", "replace"),
            )
        )
        file.write_text("\n".join(lines))
    else:
        file.write_bytes(spoil(file.name, file.read_bytes(), draw))
    return file.name


def spoilt_training(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Damages checkpoints: the result is bit-identical to the undisturbed one, from any of them."""
    good = begun(world.folder, world.data)
    shutil.copytree(good.folder / "run.training", folder / "run.training")
    names = [spoil_one(folder / "run.training", draw) for _ in range(draw.choice((1, 1, 2)))]
    done = trial.call(*train_words(world, folder / "run"))
    wrong = trial.fault(done, folder / "run")
    if (
        not wrong
        and not done.code
        and (folder / "run" / "weights.safetensors").read_bytes() != good.weights
    ):
        wrong = f"it ended otherwise: {done.err[-300:]}"
    return f"training {names}", wrong


def spoilt_study(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Damages a study: it continues, or is refused in one line.

    Optuna's journal has no checksum, so a changed number in it is accepted.
    """
    good = begun(world.folder, world.data)
    shutil.copytree(good.folder / "study", folder / "study")
    name = spoil_one(folder / "study", draw)
    done = trial.call(*tune_words(world, folder / "study"))
    wrong = trial.fault(done)
    if not wrong and not done.code:
        trials = json.loads(done.out)["trials"]
        if len(trials) < 2:
            wrong = f"{len(trials)} trials of 2"
        elif name != "journal.jsonl" and trials != good.trials:
            wrong = f"other trials: {trials}"
    return f"study {name}", wrong


def spoilt_holes(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Damages an experiment's folder: the summary is that of the undamaged one.

    The missing features may be those of the damaged file.
    """
    good = begun(world.folder, world.data)
    shutil.copytree(good.folder / "holes", folder / "holes")
    name = spoil_one(folder / "holes", draw)
    if draw.random() < 0.4:  # something is left to do, so that holes and weights are read
        for file in (folder / "holes" / "cells").glob("test-only*"):
            file.unlink()
    done = trial.call(*holes_words(world, folder / "holes"))
    wrong = trial.fault(done)
    if (
        not wrong
        and not done.code
        and name.endswith((".json", ".safetensors"))
        and json.loads(done.out) != good.summary
    ):
        wrong = "another summary"
    return f"holes {name}", wrong


def spoilt_newcomers(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Damages a log of new users and features of new videos."""
    words: list[Any] = [
        "recommend",
        "--run",
        world.run,
        "--data",
        world.data,
        "--k",
        3,
        "--gpu",
        -1,
        "--json",
    ]
    if draw.random() < 0.5:
        files = {
            name: content for name, content in trial.logs().items() if name not in trial.OPTIONS
        }
        name = draw.choice(list(files))
        (folder / name).write_bytes(spoil(name, files[name], draw))
        words += [
            "--histories",
            folder / name,
            *(["--skip-unknown"] if draw.random() < 0.5 else []),
        ]
    else:
        name = draw.choice(("visual.npy", "acoustic.csv", "visual_ids.txt"))
        ids = "".join(f"new{n}\n" for n in range(trial.ITEMS)).encode()
        csv = trial.feature_files()["acoustic.csv"].replace(b"\nv", b"\nnew")
        files = {
            "visual.npy": trial.npy(trial.features()),
            "visual_ids.txt": ids,
            "acoustic.csv": csv,
        }
        files[name] = spoil(name, files[name], draw)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        words += [
            "--new-items",
            folder / "visual.npy",
            "--new-items",
            folder / "acoustic.csv",
            "--user",
            "user3",
        ]
        words += ["--only-new"] if draw.random() < 0.5 else []
    return f"newcomers {name}", trial.fault(trial.call(*words))


def spoilt_update(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Damages a new day of log and the features of its new videos.

    Both folders are written and belong together, or neither is written.
    """
    log = "user_id,item_id,rating,timestamp\n" + "".join(
        f"{user},{item},4,{1_700_000_000 + n}\n"
        for n, (user, item) in enumerate(
            [("user1", "v0"), ("user1", "late0"), ("anna", "v3"), ("anna", "v5"), ("bo", "late1")]
        )
    )
    csv = "item_id,a,b,c,d\nlate0,0.1,0.2,0.3,0.4\nlate1,0.5,0.1,0.2,0.3\n"
    files = {"day.csv": log.encode(), "acoustic.csv": csv.encode()}
    name = draw.choice(list(files))
    files[name] = spoil(name, files[name], draw)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    new = [folder / "new-data", folder / "new-run"]
    words = ["update", "--run", world.run, "--data", world.data, "--input", folder / "day.csv"]
    done = trial.call(
        *words,
        "--features",
        folder / "acoustic.csv",
        "--new-data",
        new[0],
        "--new-run",
        new[1],
        "--json",
    )
    wrong = trial.fault(done, *new)
    if not wrong and not done.code:
        added = json.loads(done.out)["added"]
        old, larger = prepared.load(world.data), prepared.load(new[0])
        if (
            len(larger.train) != len(old.train) + added["pairs"]
            or larger.num_users != old.num_users + added["users"]
        ):
            wrong = f"the counts do not reconcile: {added}"
        if json.loads((new[1] / "run.json").read_text())["data"]["hash"] != larger.hash:
            wrong = "run and data do not belong together"
    return f"update {name}", wrong


def spoilt_words(draw: random.Random, world: trial.World, folder: Path) -> tuple[str, str]:
    """Draws any value for options of the commands that `bad_input.py` leaves out.

    Trainings have one epoch, and no cell is run.
    """
    value = str(
        draw.choice([*VALUES, *(token.decode("utf-8", "replace") for token in TOKENS)])
    ).replace("\0", "")
    where = ["--data", world.data, "--gpu", -1]
    (folder / "day.csv").write_text("user_id,item_id\nanna,v3\nanna,v4\n")
    day = [
        "--run",
        world.run,
        "--input",
        folder / "day.csv",
        "--new-data",
        folder / "new-data",
        "--new-run",
        folder / "new-run",
    ]
    common = ("--gpu", "--memory", "--data", "--set", "--model")
    tune = [
        "--model",
        "bprmf",
        "--study",
        folder / "study",
        "--trials",
        1,
        "--epochs",
        1,
        "--set",
        "width=3",
    ]
    command, words, options = draw.choice(
        (
            (
                "compare",
                [world.run, world.run, *where],
                (*common[:3], "--topk", "--metric", "--bootstrap", "--seed", "--split", "--mask"),
            ),
            (
                "update",
                day,
                ("--input", "--features", "--items", "--lr", "--memory", "--run", "--data"),
            ),
            (
                "tune",
                [*tune, *where],
                (*common, "--config", "--lr", "--batch-size", "--patience", "--seed", "--impute"),
            ),
            (
                "robustness",
                ["--out", folder / "holes", "--minutes", 0, *where],
                (
                    *common[:4],
                    "--models",
                    "--rates",
                    "--patterns",
                    "--stages",
                    "--strategies",
                    "--seeds",
                    "--epochs",
                    "--patience",
                ),
            ),
        )
    )
    option = draw.choice(options)
    if option == "--set":
        keys = ("lr", "width", "metric", "seed", "bprmf.width", "dualgnn.width", "nosuch", "")
        value = f"{draw.choice(keys)}={value}"
    return f"words {command} {option} {value[:40]!r}", trial.fault(
        trial.call(command, *words, option, value)
    )


ARTEFACTS: dict[str, tuple[Callable[[random.Random, trial.World, Path], tuple[str, str]], int]] = {
    "training": (spoilt_training, 35),
    "study": (spoilt_study, 15),
    "holes": (spoilt_holes, 15),
    "newcomers": (spoilt_newcomers, 20),
    "update": (spoilt_update, 15),
    "words": (spoilt_words, 15),
}


def artefact(seed: int, world: trial.World, folder: Path) -> tuple[str, str]:
    """Runs case `seed` in an empty folder, and returns the case and its fault or ''."""
    draw = random.Random(seed)
    kind = draw.choices(list(ARTEFACTS), [weight for _, weight in ARTEFACTS.values()])[0]
    return ARTEFACTS[kind][0](draw, world, folder)
