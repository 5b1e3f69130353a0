"""The honest table: every model on the same data, the same kernels, the same number of trials, chosen on validation only.

    python -m benchmarks.quality.compare --data tiktok --models mostpop,bprmf,lightgcn,dualgnn --trials 8 --seeds 3

For each model: `--trials` configurations, the defaults first and then draws from its `SEARCH` space, all with seed 0; the
one with the best validation recall@20 is trained with `--seeds` seeds, and only those runs look at the test split, once.
Each training is a process of its own (so that its peak memory is its own) and a cached result under results/compare/,
named by its content: the data's hash, the model, its configuration and the training options. Stop it and run on at will.

The leader is then compared with every other model, user by user, each user's recall@20 being the mean over the seeds: paired
bootstrap and Wilcoxon, each with Holm's correction for the number of models. What that needs lies beside each test result as a
small Parquet file: for every test user, in ascending order, which of the 20 places are hits (a bit each) and how many videos
were held out; every metric follows from that. Results from before those files existed have none: `--refill` trains them again,
and replaces them only if their figures do not repeat.

With `--settings-of NAME` nothing is searched here: each model takes what its row in results/compare-NAME.json has chosen on the
validation of that data set, and the table says so. It is for sets too large to search on, beside a sample of theirs, and for
other splits. `--settings-of defaults` takes what a model is shipped with, as `dualgnn train` would. Of several names (commas) the
settings with the best validation here, the mean over the seeds, are taken.

A run may name a few models only: results/compare-NAME.json keeps the rows of all others, and the tests are made anew among all.
With `--against MODEL` nothing is trained: the kept runs of `--models` are tested against that model's, which need not lead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.lib.paths import METRIC, REPOSITORY, RESULTS, Folders, add_folders
from benchmarks.lib.prepared import prepare
from benchmarks.quality.tables import kept_rows, markdown, small, table_of

KS = (10, 20)
COMPARE = RESULTS / "compare"

# What others published on the same files: recall@20 and NDCG@20, by our names. Not by the same protocol: see NOTES.
PUBLISHED = {
    "tiktok": {
        "bprmf": (0.0346, 0.0130), "lightgcn": (0.0653, 0.0282), "vbpr": (0.0380, 0.0134), "mmgcn": (0.0730, 0.0307),
        "grcn": (0.0804, 0.0350), "bm3": (0.0957, 0.0404),
    },
    "baby": {
        "bprmf": (0.0575, 0.0249), "lightgcn": (0.0754, 0.0328), "vbpr": (0.0663, 0.0284), "mmgcn": (0.0615, 0.0261),
        "grcn": (0.0833, 0.0363), "dualgnn": (0.0716, 0.0309), "bm3": (0.0883, 0.0383), "freedom": (0.0992, 0.0424),
        "mgcn": (0.0964, 0.0427),
    },
}  # fmt: skip
NOTES = {
    "tiktok": "Published: the READMEs of MMSSL and DiffMM, same interactions and split, with text features that cannot be had "
    "(ours are image and audio); their best is DiffMM, 0.1129 / 0.0456. No DualGNN, FREEDOM or MGCN row is published.",
    "baby": "Published: MMRec's evaluation table (MGCN: its own repository), same split, only training pairs masked; models that "
    "read features had images and text, ours have none on this set.",
}

# Validations in a row without a better one before a training ends, where --patience is less than a model needs to show what it
# can: BM3 starts at popularity, falls, and rises past that only after 15 to 100 epochs (LOG.md).
PATIENCE = {"bm3": 60}

# name → (source in prepared.py, split, mask at test); a sample is for searching: the settings found there serve the whole set
DATA = {
    "tiktok": ("tiktok", "given", "all"),
    "baby": ("baby", "given", "train"),
    "microlens-loo": ("microlens", "leave-one-out", "all"),
    "microlens-time": ("microlens", "time-user", "all"),
    "microlens-random": ("microlens", "random", "all"),
    "microlens-15k-loo": ("microlens-15k", "leave-one-out", "all"),
    "microlens-15k-time": ("microlens-15k", "time-user", "all"),
    "microlens-15k-random": ("microlens-15k", "random", "all"),
    "movielens-1m": ("movielens-1m", "random", "all"),
    "movielens-800": ("movielens-800", "random", "all"),
}


# Trials more with --large, the same for every trained model: the defaults in larger batches, at three rates (two, where the first
# of all trials has such batches by --set). They stand outside of the SEARCH spaces, because a key more there would change every
# draw and throw the cached trials away.
LARGE = tuple({"batch_size": 16384, "lr": rate} for rate in (1e-3, 3e-3, 1e-2))
SMALL = ({"batch_size": 2048},)  # and one more with --small, where --set gives all others larger batches


def draw_configs(model: str, trials: int, more: tuple[dict, ...] = (), train: dict | None = None) -> list[dict]:
    """The defaults, then `trials - 1` distinct draws from the model's SEARCH space, the same for every machine; then those of
    `more` that the options of all trainings, `train`, do not make one of the others.
    """
    from dualgnn_dgl.models import model_class

    space = model_class(model).SEARCH
    configs: list[dict] = [{}]
    draw = random.Random(f"{model} 2026")
    for _ in range(200 * trials):
        config = {key: draw.choice(values) for key, values in space.items()}
        if space and config not in configs and len(configs) < trials:
            configs.append(config)
    known = [in_full(config, train or {}) for config in configs]
    if model_class(model).trainable:
        configs += [config for config in more if in_full(config, train or {}) not in known]
    return configs


def in_full(config: dict, train: dict) -> dict:
    """A configuration with what it leaves to the options of all trainings, or to their defaults."""
    from dualgnn_dgl.training import TrainConfig

    defaults = TrainConfig()
    values = {"batch_size": defaults.batch_size, "lr": defaults.lr} | train | config
    return values | {key: float(values[key]) for key in ("batch_size", "lr")}  # --set gives text


def train_one(spec: dict) -> dict:
    """Train as `spec` says; runs in a process of its own."""
    import torch

    from dualgnn_dgl import data, models, training
    from dualgnn_dgl.evaluation import Evaluator, bootstrap
    from dualgnn_dgl.options import build, keys

    torch.set_num_threads(int(spec["threads"]))
    dataset = data.load(spec["folder"])
    kind = models.model_class(spec["model"])
    values = {**spec["train"], **spec["config"], "seed": spec["seed"]}
    config = build(kind.Config, {k: v for k, v in values.items() if k in keys(kind.Config)})
    options = build(training.TrainConfig, {k: v for k, v in values.items() if k in keys(training.TrainConfig)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = training.train_model(spec["model"], dataset, config, options, device=device)
    fit = trained.fit
    seconds = [row["seconds"] for row in fit.history]
    result = {
        "valid": fit.best_value,
        "best_epoch": fit.best_epoch,
        "epochs": len(fit.history),
        "setup_s": round(trained.setup_seconds, 3),
        "epoch_s": round(float(np.median(seconds)), 4),
        "to_best_s": round(sum(row.get("total_seconds", 0.0) for row in fit.history[: fit.best_epoch]), 2),
        "curve": [round(row.get(METRIC, float("nan")), 5) for row in fit.history if METRIC in row],
        "resolved": dataclasses.asdict(config) | dataclasses.asdict(options),
        "device": str(device),
    }
    if spec["test"]:
        seen = [dataset.train] if spec["mask"] == "train" else [dataset.train, dataset.valid]
        evaluator = Evaluator(dataset.test, seen, ks=KS)
        items = evaluator.rank(fit.user, fit.item)
        found = evaluator.measure(items)
        intervals = bootstrap(found.per_user, seed=0)
        result["test"] = {name: round(value, 5) for name, value in (found.means | found.coverage).items()}
        result["intervals"] = {name: [round(end, 5) for end in interval] for name, interval in intervals.items()}
        result["users"] = len(found.users)
        write_hits(Path(spec["hits"]), evaluator, items)
    result["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return result


def write_hits(file: Path, evaluator, items: np.ndarray) -> None:
    """Which places of each test user's list (B, K ≤ 31) are hits, bit j for place j + 1, and how many items were held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dualgnn_dgl.evaluation import hit_matrix
    from dualgnn_dgl.files import atomic_file

    held = evaluator.truth
    bits = hit_matrix(items, held) @ (1 << np.arange(items.shape[1], dtype=np.int64))  # (B,)
    table = pa.table({"hits": bits.astype(np.int32), "held_out": np.diff(held.indptr).astype(np.int32)})
    with atomic_file(file) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_hits(file: Path) -> dict[str, np.ndarray]:
    """Every metric of every test user (B,), from the file that `write_hits` wrote."""
    import pyarrow.parquet as pq

    from dualgnn_dgl.evaluation import metrics_per_user

    table = pq.read_table(file)
    bits = table["hits"].to_numpy()
    places = (bits[:, None] >> np.arange(max(KS), dtype=np.int32)) & 1  # (B, K)
    return metrics_per_user(places.astype(bool), table["held_out"].to_numpy(), KS)


def key_of(content: dict) -> str:
    """The name of a result: what was trained, on which data, how."""
    from dualgnn_dgl.files import json_digest

    return json_digest(content)[:16]


def cached(
    name: str,
    folder: Path,
    model: str,
    config: dict,
    seed: int,
    train: dict,
    *,
    test: bool,
    threads: int,
    results: Path,
    refill: bool = False,
) -> dict:
    """The result of one training, from its file or by running it; its `hits` is the file of a test's hits, if there is one."""
    from dualgnn_dgl.files import read_json, write_json

    manifest = read_json(folder / "dataset.json")
    content = {"data": manifest["hash"], "model": model, "config": config, "seed": seed, "train": train, "test": test}
    file = results / f"{name}-{model}-{key_of(content)}.json"
    hits = file.with_suffix(".parquet")
    if file.is_file() and not (refill and test and not hits.is_file()):
        return read_json(file) | ({"hits": hits} if hits.is_file() else {})
    spec = content | {"folder": str(folder), "mask": DATA[name][2], "threads": threads, "hits": str(hits)}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.quality.compare", "--one", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(f"{model} on {name} failed: {done.stderr.strip().splitlines()[-1:]}")
    result = content | json.loads(done.stdout.splitlines()[-1]) | {"machine": machine(threads)}
    kept = read_json(file) if file.is_file() else None
    if kept is not None and kept["test"] == result["test"]:
        result = kept  # the figures repeat: the times stay those that were measured first
    else:
        write_json(file, result)
    figures = result["test"] if test else {"valid": result["valid"]}
    shown = " ".join(f"{key} {value:.4f}" for key, value in figures.items() if key in ("valid", "recall@20", "ndcg@20"))
    print(
        f"{name} {model} seed {seed} {config}: {shown}, epoch {result['best_epoch']}, {result['epoch_s']} s/epoch",
        file=sys.stderr,
    )
    return result | ({"hits": hits} if test else {})


def machine(threads: int) -> dict:
    """What the figures were made on."""
    import torch

    from dualgnn_dgl.checkpoint import versions

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": name, "threads": threads, "gpu": gpu, **versions()}


def compare(
    name: str,
    folders: Folders,
    model: str,
    trials: int,
    seeds: int,
    train: dict,
    threads: int,
    results: Path,
    refill: bool,
    more: tuple[dict, ...] = (),
    settings_of: str | None = None,
) -> dict:
    """A model's row in the table of a data set; `ranked` adds the tests."""
    folder = prepare(*DATA[name][:2], folders)
    options = train | {"patience": max(int(train["patience"]), PATIENCE.get(model, 0))}
    row: dict = {"data": name, "model": model}

    def seeded(config: dict) -> list[dict]:
        ways = {"test": True, "threads": threads, "results": results, "refill": refill}
        return [cached(name, folder, model, config, seed, options, **ways) for seed in range(seeds)]

    if settings_of is None:
        tried = [
            (config, cached(name, folder, model, config, 0, options, test=False, threads=threads, results=results))
            for config in draw_configs(model, trials, more, train)
        ]
        config, best = max(tried, key=lambda pair: pair[1]["valid"])
        row |= {"trials": len(tried), "valid": best["valid"]}
        runs = seeded(config)
    else:
        known = [(place, *settled(place, model)) for place in settings_of.split(",")]
        of_each = [(place, config, seeded(config)) for place, config, _ in known]
        place, config, runs = max(of_each, key=lambda one: valid_of(one[2]))
        row |= {"trials": sum(number for *_, number in known), "settings of": place, "valid": valid_of(runs)}
    row |= {"seeds": len(runs), "config": config, "train": options}
    row |= over_seeds([run["test"] for run in runs], ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "coverage@20"))
    row["interval recall@20"] = runs[0]["intervals"]["recall@20"]
    row["users"] = runs[0]["users"]
    row["published"] = PUBLISHED.get(name, {}).get(model)
    row["machines"] = sorted({str(run["machine"]["gpu"] or run["machine"]["cpu"]) for run in runs})
    row["hits"] = [run["hits"].name for run in runs if "hits" in run]
    on_gpu = [run["machine"]["gpu"] is not None for run in runs]
    row["timed on a GPU"] = sum(on_gpu) * 2 > len(runs)  # where seeds were trained on either, times are those of the more
    timed = [run for run, gpu in zip(runs, on_gpu, strict=True) if gpu == row["timed on a GPU"]]
    for figure in ("epoch_s", "to_best_s", "peak_mb"):
        row[figure] = float(np.median([run[figure] for run in timed]))
    return row


def settled(name: str, model: str) -> tuple[dict, int]:
    """The configuration that a model's row in another data set's table has, and out of how many trials; or a model's defaults."""
    from dualgnn_dgl.models import model_class

    if name == "defaults":
        return dict(model_class(model).TRAIN), 1
    rows = {row["model"]: row for row in kept_rows(name)}
    if model not in rows:
        raise SystemExit(f"{table_of(name)} has no row of {model}: make it first, compare.py --data {name} --models {model}")
    return rows[model]["config"], rows[model]["trials"]


def valid_of(runs: list[dict]) -> float:
    """Validation recall@20, the mean over the seeds."""
    return float(np.mean([run["valid"] for run in runs]))


def over_seeds(figures: list[dict], names: tuple[str, ...]) -> dict[str, float]:
    """Mean and standard deviation (0 of one seed) of each named figure."""
    found = {}
    for name in names:
        values = [figure[name] for figure in figures]
        found[name], found[f"{name} sd"] = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return found


def kept_hits(row: dict, results: Path) -> list[Path]:
    """The files of a row's test hits, one a seed; none unless all are there."""
    files = [results / name for name in row.get("hits", ())]
    return files if len(files) == row["seeds"] and all(file.is_file() for file in files) else []


def users_mean(files: list[Path]) -> np.ndarray:
    """Each test user's recall@20, the mean over the seeds whose hits the files keep, (B,)."""
    return np.mean([read_hits(file)[METRIC] for file in files], axis=0)


def merged(rows: list[dict], before: list[dict]) -> list[dict]:
    """These rows, and of models that they leave out those from before."""
    here = {row["model"] for row in rows}
    return [*rows, *(row for row in before if row["model"] not in here)]


def ranked(rows: list[dict], results: Path) -> list[dict]:
    """Best test recall first, each row with its tests against the first; without them where users' hits are not kept."""
    rows = sorted(rows, key=lambda row: -row[METRIC])
    per_user = {}
    for row in rows:
        if files := kept_hits(row, results):
            per_user[row["model"]] = users_mean(files)
    found = significance(per_user, rows[0]["model"])
    tests = ("difference", "difference interval", "p bootstrap", "p Wilcoxon")
    return [{key: v for key, v in row.items() if key not in tests} | found.get(row["model"], {}) for row in rows]


def against(name: str, base: str, models: list[str], results: Path) -> str:
    """A Markdown table of kept rows' recall@20 against that of `base`, Holm's correction for as many as are named."""
    rows, per_user = {row["model"]: row for row in kept_rows(name)}, {}
    for model in (base, *models):
        files = kept_hits(rows[model], results) if model in rows else []
        if not files:
            made = f"compare.py --data {name} --models {model}"
            raise SystemExit(f"{table_of(name)} has no row of {model} with its users' hits: {made} makes it")
        per_user[model] = users_mean(files)
    lines = [f"| {base} {rows[base][METRIC]:.4f} against | {METRIC} | lead, 95 % interval | p bootstrap | p Wilcoxon |"]
    lines.append("| --- " * 5 + "|")
    for model, found in significance(per_user, base).items():
        low, high = found["difference interval"]
        lead = f"{-found['difference']:+.4f} ({-high:+.4f} to {-low:+.4f})".replace("-", "−")
        cells = [model, f"{rows[model][METRIC]:.4f}", lead, small(found["p bootstrap"]), small(found["p Wilcoxon"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def significance(per_user: dict[str, np.ndarray], leader: str) -> dict[str, dict]:
    """model → its difference to the leader in recall@20, over the same users, and both tests' p-values with Holm's correction."""
    from dualgnn_dgl.evaluation import holm, paired

    if leader not in per_user:
        return {}
    found = paired(per_user[leader], {model: values for model, values in per_user.items() if model != leader}, resamples=10_000)
    bootstrap = holm([difference.p_bootstrap for difference in found.values()])
    wilcoxon = holm([difference.p_wilcoxon for difference in found.values()])
    return {
        model: {"difference": d.mean, "difference interval": [d.low, d.high], "p bootstrap": p, "p Wilcoxon": q}
        for (model, d), p, q in zip(found.items(), bootstrap, wilcoxon, strict=True)
    }


def title(name: str, rows: list[dict]) -> str:
    """What a table was made on."""
    _, split, mask = DATA[name]
    masked = "training pairs" if mask == "train" else "training and validation pairs"
    machines = ", ".join(sorted({machine for row in rows for machine in row["machines"]}))
    users = f"{rows[0]['users']:,} test users"
    own = {f"{key}={value}" for row in rows for key, value in row.get("train", {}).items() if key not in ("epochs", "patience")}
    elsewhere = sorted({row["settings of"] for row in rows if "settings of" in row})
    chosen = ", ".join([f"chosen on validation {METRIC}", *(f"settings those of {place}" for place in elsewhere), *sorted(own)])
    return f"{name}: split {split}, {users}, {masked} masked, {chosen}; {machines}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_folders(parser)
    parser.add_argument("--data", default="tiktok", help=f"comma-separated: {', '.join(DATA)}")
    parser.add_argument("--models", default="mostpop,bprmf,lightgcn,dualgnn")
    parser.add_argument("--trials", type=int, default=8, help="configurations a model, the defaults among them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--patience", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    text = "training option of every trial that has none of its own, e.g. batch_size=16384"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    parser.add_argument("--quick", action="store_true", help="one trial, one seed, five epochs: does it run?")
    parser.add_argument("--large", action="store_true", help="up to three trials more for every trained model: batches of 16,384")
    parser.add_argument("--small", action="store_true", help="one more: batches of 2,048, where --set says otherwise")
    parser.add_argument("--settings-of", metavar="NAMES", help="no search: a model's settings in that table, or defaults")
    parser.add_argument("--against", metavar="MODEL", help="no training: test the kept runs of --models against this model's")
    parser.add_argument("--refill", action="store_true", help="train again what was tested without keeping the users' hits")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train_one(json.loads(arguments.one))))
        return
    from dualgnn_dgl.options import parse_pair

    trials, seeds, epochs = (1, 1, 5) if arguments.quick else (arguments.trials, arguments.seeds, arguments.epochs)
    results = arguments.cache / "quick" if arguments.quick else COMPARE
    train = {"epochs": epochs, "patience": arguments.patience} | dict(map(parse_pair, arguments.set))
    for name in arguments.data.split(","):
        if arguments.against:
            others = [model for model in arguments.models.split(",") if model != arguments.against]
            print(f"\n{name}\n\n{against(name, arguments.against, others, results)}")
            continue
        rows: list[dict] = []
        for model in arguments.models.split(","):  # the table grows row by row: what is done stands if the rest is cut off
            row = compare(
                name,
                Folders.of(arguments),
                model,
                trials,
                seeds,
                train,
                arguments.threads,
                results,
                arguments.refill,
                (LARGE if arguments.large else ()) + (SMALL if arguments.small else ()),
                arguments.settings_of,
            )
            # what is kept is read anew: another process may have added to it meanwhile
            rows = ranked(merged([row], rows if arguments.quick else kept_rows(name)), results)
            if not arguments.quick:
                table_of(name).write_text(json.dumps(rows, indent=2) + "\n")
        print(f"\n{title(name, rows)}\n\n{markdown(rows)}\n")
        if any("difference" not in row for row in rows[1:]):
            print("–: tested before users' hits were kept; --refill trains again and fills the gap.")
        if name in NOTES:
            print(NOTES[name])


if __name__ == "__main__":
    main()
