"""Compares every model on the same data, with the same number of trials, chosen on validation only.

    python -m benchmarks.quality.compare --data tiktok --models mostpop,bprmf,lightgcn,dualgnn
    --trials 8 --seeds 3

For each model: `--trials` configurations, the defaults first and then draws from its `SEARCH`
space, all with seed 0. The one with the best validation recall@20 is trained with `--seeds` seeds;
only those runs use the test split, once. Every training is kept (trainings.py), so a run can be
stopped and started again.

The leader is compared with every other model, user by user; each user's recall@20 is the mean over
the seeds. The tests are the paired bootstrap and Wilcoxon, each with Holm's correction for the
number of models. A test keeps, for every test user, which of the 20 places are hits and how many
items were held out; every metric follows from these. Old tests did not keep them: `--refill` trains
them again, and replaces them only if their results do not repeat.

`--settings-of NAME` searches nothing: each model takes the settings of its row in
results/compare-NAME.json, and the table says so. It is for sets too large to search on, for which
there is a sample, and for other splits. `--settings-of defaults` takes the model's defaults, as
`dualgnn train` would. Of several names (commas), the settings with the best validation here, the
mean over the seeds, are taken.

A run may name a few models: results/compare-NAME.json keeps the rows of all others, and all are
tested again. `--against MODEL` trains nothing: it tests the kept runs of `--models` against those
of that model, which need not lead.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.lib.datasets import DATA, NOTES, PUBLISHED
from benchmarks.lib.packed import Training
from benchmarks.lib.paths import METRIC, Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.lib.tables import command_of, markdown, read_rows, write_table
from benchmarks.lib.trainings import Trainings
from benchmarks.quality.ranking import against, merged, ranked, results_of, valid_of
from benchmarks.quality.search import LARGE, PATIENCE, SMALL, draw_configs, settled


def compare(
    name: str,
    folders: Folders,
    model: str,
    trainings: Trainings,
    *,
    trials: int,
    seeds: int,
    train: dict,
    more: tuple[dict, ...] = (),
    settings_of: str | None = None,
) -> dict:
    """Searches, trains and measures one model.

    Args:
        name: Data set.
        folders: Raw data and cache.
        model: Name of the model.
        trainings: Trainings of this data set.
        trials: Configurations to try.
        seeds: Seeds of the chosen one.
        train: Training options that all trials share.
        more: Further configurations of a trained model.
        settings_of: Tables whose settings are taken instead of a search, separated by commas.

    Returns:
        The model's row; `ranked` adds the tests.
    """
    data = DATA[name]
    folder = prepare(data.source, data.split, folders)
    options = train | {"patience": max(int(train["patience"]), PATIENCE.get(model, 0))}

    def seeded(config: dict) -> list[Training]:
        return [
            trainings.run(name, folder, model, config, seed, options, mask=data.mask)
            for seed in range(seeds)
        ]

    row: dict = {"data": name, "model": model}
    if settings_of is None:
        tried = [
            (config, trainings.run(name, folder, model, config, 0, options, mask=None))
            for config in draw_configs(model, trials, more, train)
        ]
        config, best = max(tried, key=lambda pair: pair[1]["valid"])
        row |= {"trials": len(tried), "valid": best["valid"]}
        runs = seeded(config)
    else:
        known = [(place, *settled(place, model)) for place in settings_of.split(",")]
        of_each = [(place, config, seeded(config)) for place, config, _ in known]
        place, config, runs = max(of_each, key=lambda one: valid_of(one[2]))
        row |= {
            "trials": sum(number for *_, number in known),
            "settings of": place,
            "valid": valid_of(runs),
        }
    row |= {"config": config, "train": options, "published": PUBLISHED.get(name, {}).get(model)}
    return row | results_of(runs)


def about(name: str, rows: list[dict]) -> dict:
    """Returns the head of a table's summary, which its rows share."""
    data = DATA[name]
    facts = {
        "name": name,
        "split": data.split,
        "masked at test": data.masked,
        "test users": rows[0]["users"],
    }
    commands = list(dict.fromkeys(row["command"] for row in rows if "command" in row))
    return {"data": facts, "metric": METRIC, "commands": commands, "note": NOTES.get(name)}


def title(name: str, rows: list[dict]) -> str:
    """Returns the caption of a table."""
    machines = ", ".join(sorted({machine for row in rows for machine in row["machines"]}))
    users = f"{rows[0]['users']:,} test users"
    own = {
        f"{key}={value}"
        for row in rows
        for key, value in row.get("train", {}).items()
        if key not in ("epochs", "patience")
    }
    elsewhere = sorted({row["settings of"] for row in rows if "settings of" in row})
    chosen = ", ".join(
        [
            f"chosen on validation {METRIC}",
            *(f"settings those of {place}" for place in elsewhere),
            *sorted(own),
        ]
    )
    return (
        f"{name}: split {DATA[name].split}, {users}, {DATA[name].masked} masked, {chosen}; "
        f"{machines}"
    )


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--data", default="tiktok", help=f"comma-separated: {', '.join(DATA)}")
    parser.add_argument("--models", default="mostpop,bprmf,lightgcn,dualgnn")
    parser.add_argument(
        "--trials", type=int, default=8, help="configurations per model, including the defaults"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    text = "training option of every trial that has none of its own, e.g. batch_size=16384"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    parser.add_argument(
        "--quick", action="store_true", help="one trial, one seed, five epochs: does it run?"
    )
    parser.add_argument(
        "--large",
        action="store_true",
        help="up to three trials more for every trained model: batches of 16,384",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="one more: batches of 2,048, where --set says otherwise",
    )
    parser.add_argument(
        "--settings-of",
        metavar="NAMES",
        help="no search: a model's settings in that table, or defaults",
    )
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="no training: test the kept runs of --models against this model's",
    )
    parser.add_argument(
        "--refill",
        action="store_true",
        help="train again the tests whose users' hits were not kept",
    )
    arguments = parser.parse_args()
    from dualgnn_dgl.core.options import parse_pair

    trials, seeds, epochs = (
        (1, 1, 5) if arguments.quick else (arguments.trials, arguments.seeds, arguments.epochs)
    )
    train = {"epochs": epochs, "patience": arguments.patience} | dict(
        map(parse_pair, arguments.set)
    )
    ways = {"trials": trials, "seeds": seeds, "train": train, "settings_of": arguments.settings_of}
    ways["more"] = (LARGE if arguments.large else ()) + (SMALL if arguments.small else ())
    kept = {"threads": arguments.threads, "refill": arguments.refill, "quick": arguments.quick}
    command, models = (
        command_of("benchmarks.quality.compare", sys.argv[1:]),
        arguments.models.split(","),
    )
    for name in arguments.data.split(","):
        table, rows = f"compare-{name}", []
        trainings = Trainings(table, arguments.cache, **kept)
        if arguments.against:
            others = [model for model in models if model != arguments.against]
            print(f"\n{name}\n\n{against(name, arguments.against, others, trainings)}")
            continue
        # The table grows row by row, so that an interrupted run keeps its finished rows.
        for model in models:
            row = compare(name, Folders.of(arguments), model, trainings, **ways) | {
                "command": command
            }
            if arguments.quick:
                rows = ranked(merged([row], rows), trainings)
                continue
            with trainings.packed_under_lock():  # another process may have added rows meanwhile
                rows = ranked(merged([row], read_rows(table)), trainings)
                write_table(table, about(name, rows), rows)
        print(f"\n{title(name, rows)}\n\n{markdown(rows)}\n")
        if any("difference" not in row for row in rows[1:]):
            print("–: tested before users' hits were kept; --refill trains again and adds them.")
        if name in NOTES:
            print(NOTES[name])


if __name__ == "__main__":
    main()
