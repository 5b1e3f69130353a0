"""What co-occurring users supply to users of the demo none of whose videos has their favourite
modality.

    python -m benchmarks.quality.borrowing --rates .8,.9,.95

The paper's claim is that the co-occurrence graph makes up for missing modalities. In the demo every
user has one planted favourite modality; holes are made until some users see nothing of it (they are
*blind*). The table shows for these users how much attention the model pays to the favourite (1/3
would be chance, 0 is all that is possible without borrowing), for how many it is the largest, and
recall@20. Mean over `--seeds`; recall with the users' 95 % interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.lib.paths import RESULTS


def blind_users(holed, favourite: np.ndarray) -> np.ndarray:
    """Users (U,) none of whose training videos has their favourite modality."""
    # of shape (I, M)
    present = np.stack([modality.present for modality in holed.modalities.values()], axis=1)
    seen = np.zeros((holed.num_users, present.shape[1]), dtype=np.int64)
    np.add.at(seen, holed.train.user, present[holed.train.item])
    return seen[np.arange(holed.num_users), favourite] == 0


def draw(rows: list[dict], path: Path) -> None:
    """Attention on the favourite and recall@20 of blind users, beside the chance of attention."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for n, borrow in enumerate((False, True)):
        mine = [row for row in rows if row["borrow"] is borrow]
        places = np.arange(len(mine)) + 0.4 * n
        label = "with borrowing" if borrow else "without"
        left.bar(places, [row["attention"] for row in mine], 0.38, label=label)
        ends = np.array(
            [
                [row["recall"] - row["interval"][0], row["interval"][1] - row["recall"]]
                for row in mine
            ]
        ).T
        right.bar(places, [row["recall"] for row in mine], 0.38, yerr=ends, capsize=3)
    left.axhline(1 / 3, color="gray", linestyle=":", label="chance")
    left.set_ylabel("attention on the favourite modality")
    right.set_ylabel("recall@20")
    ticks = [f"{row['rate']:.0%}\n({row['blind']} users)" for row in rows if not row["borrow"]]
    for axis in (left, right):
        axis.set_xticks(np.arange(len(ticks)) + 0.2, ticks)
        axis.set_xlabel("features missing (users without their favourite)")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, format="png", dpi=130)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", default=".8,.9,.95")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one epoch: does it run?")
    arguments = parser.parse_args()

    import torch

    from dualgnn_dgl import models, preprocess, training
    from dualgnn_dgl.core.files import write_json
    from dualgnn_dgl.data import synthetic
    from dualgnn_dgl.evaluation import Evaluator, bootstrap
    from dualgnn_dgl.graphs import heterographs
    from dualgnn_dgl.modality import drop

    torch.set_num_threads(1)
    planted = synthetic.planted()
    dataset = preprocess.prepare(planted.raw).dataset
    names, found = list(dataset.modalities), planted.favourite_of()
    favourite = np.array([names.index(found[user]) for user in dataset.user_ids.tolist()])  # (U,)
    net = heterographs.heterograph(dataset)
    evaluate = Evaluator(dataset.test, [dataset.train, dataset.valid], ks=(20,))
    rows = []
    for rate in map(float, arguments.rates.split(",")):
        for borrow in (False, True):
            attention, largest, recall, blind = [], [], [], []
            for seed in range(arguments.seeds):
                holed = drop(dataset, rate, seed=seed)
                config = models.model_class("dualgnn").Config(borrow=borrow)
                epochs = 1 if arguments.quick else arguments.epochs
                options = training.TrainConfig(epochs=epochs, patience=4, seed=seed)
                fit = training.train_model(
                    "dualgnn", training.Inputs(holed, net, holed.modalities), config, options
                ).fit
                rows_ = np.flatnonzero(blind_users(holed, favourite))
                weights = fit.attention.numpy()[rows_]
                attention.append(weights[np.arange(len(rows_)), favourite[rows_]].mean())
                largest.append((weights.argmax(1) == favourite[rows_]).mean())
                result = evaluate(fit.user, fit.item)
                recall.append(result.per_user["recall@20"][np.isin(result.users, rows_)])
                blind.append(len(rows_))
            values = np.concatenate(recall)
            rows.append(
                {
                    "rate": rate,
                    "borrow": borrow,
                    "blind": int(np.mean(blind)),
                    "attention": float(np.mean(attention)),
                    "largest": float(np.mean(largest)),
                    "recall": float(values.mean()),
                    "interval": list(bootstrap({"recall": values}, seed=0)["recall"]),
                }
            )
    print(
        "| missing | blind users | borrow | attention on the favourite | largest for | recall@20 "
        "|\n|---|---|---|---|---|---|"
    )
    for row in rows:
        low, high = row["interval"]
        print(
            f"| {row['rate']:.0%} | {row['blind']} | {'yes' if row['borrow'] else 'no'} | "
            f"{row['attention']:.3f} "
            f"| {row['largest']:.0%} | {row['recall']:.4f} [{low:.4f}, {high:.4f}] |"
        )
    if not arguments.quick:
        write_json(RESULTS / "borrowing.json", {"seeds": arguments.seeds, "rows": rows})
        draw(rows, RESULTS / "borrowing.png")


if __name__ == "__main__":
    main()
