"""Makes one training in a process of its own.

`trainings.py` starts the process and reads the JSON that it prints.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys

import numpy as np

from benchmarks.lib.paths import METRIC
from benchmarks.lib.trainings import KS


def train_one(spec: dict) -> dict:
    """Trains and measures one model.

    Args:
        spec: The training's content, with its prepared `folder`, its number of `threads` and its
            `mask` at test.

    Returns:
        The results of a training, with its users' hits if it is a test.
    """
    import torch

    from benchmarks.lib.released import model_of
    from dualgnn_dgl import data, training
    from dualgnn_dgl.core.options import build, keys
    from dualgnn_dgl.evaluation import Evaluator, bootstrap

    torch.set_num_threads(int(spec["threads"]))
    dataset = data.load(spec["folder"])
    kind = model_of(spec["model"], spec["config"])
    values = {**spec["train"], **spec["config"], "seed": spec["seed"]}
    of_training = keys(training.TrainConfig)
    config = build(kind.Config, {k: v for k, v in values.items() if k not in of_training})
    options = build(training.TrainConfig, {k: v for k, v in values.items() if k in of_training})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = training.train_model(kind, dataset, config, options, device=device)
    fit = trained.fit
    seconds = [row["seconds"] for row in fit.history]
    result = {
        "valid": fit.best_value,
        "best_epoch": fit.best_epoch,
        "epochs": len(fit.history),
        "setup_s": round(trained.setup_seconds, 3),
        "epoch_s": round(float(np.median(seconds)), 4),
        "to_best_s": round(
            sum(row.get("total_seconds", 0.0) for row in fit.history[: fit.best_epoch]), 2
        ),
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
        result["test"] = {
            name: round(value, 5) for name, value in (found.means | found.coverage).items()
        }
        result["intervals"] = {
            name: [round(end, 5) for end in interval] for name, interval in intervals.items()
        }
        result["users"] = len(found.users)
        result |= {key: values.tolist() for key, values in hits_of(evaluator, items).items()}
    result["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return result


def hits_of(evaluator, items: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the data from which every metric of a test can be computed.

    Args:
        evaluator: Evaluator of the test split.
        items: Lists of its users, (B, K), K ≤ 31.

    Returns:
        hits: Bits of each user, (B,) int32; bit j says whether place j + 1 is a hit.
        held_out: Held-out items of each user, (B,) int32.
    """
    from dualgnn_dgl.evaluation.metrics import hit_matrix

    held = evaluator.truth
    bits = hit_matrix(items, held) @ (1 << np.arange(items.shape[1], dtype=np.int64))  # (B,)
    return {"hits": bits.astype(np.int32), "held_out": np.diff(held.indptr).astype(np.int32)}


if __name__ == "__main__":
    print(json.dumps(train_one(json.loads(sys.argv[1]))))
