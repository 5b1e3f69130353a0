"""`dualgnn recommend`: a user's list in their own ids, or the lists of all users as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli import streams
from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.evaluate import check_output, data_option, open_run
from dualgnn_dgl.cli.show import PATH, force_option, json_option, memory_option, note, print_text, result, run_option
from dualgnn_dgl.errors import clean

if TYPE_CHECKING:
    import numpy as np
    from scipy import sparse
    from torch import Tensor

    from dualgnn_dgl.data import Dataset
    from dualgnn_dgl.newcomers import Newcomers

_TITLE_CELLS = 100


@click.command(short_help="Print a user's top-K list in your own ids.")
@click.option("--user", "wanted", multiple=True, metavar="ID", help="A user, by your own id; repeatable.")
@click.option(
    "--history",
    "watched",
    multiple=True,
    metavar="ID,ID,…",
    help="A user who came after training: the micro-videos they watched; repeatable, one user each.",
)
@click.option(
    "--histories",
    "log",
    default=None,
    type=PATH,
    metavar="LOG",
    help="Such users from a log, in any form that preprocess reads; /dev/stdin works, too.",
)
@click.option("--skip-unknown", is_flag=True, help="Leave out watched ids that the data does not know, instead of stopping.")
@click.option(
    "--new-items",
    "new_files",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Features of videos that came after training, a file per modality named after it; they join the ranking.",
)
@click.option("--only-new", is_flag=True, help="Rank the videos of --new-items alone.")
@click.option("--k", type=int, default=10, show_default=True, help="List length.")
@click.option(
    "--all", "file", type=PATH, metavar="FILE", help="Write the lists of all users, the run's or LOG's, to this Parquet file."
)
@click.option("--include-seen", is_flag=True, help="Rank what the user has watched (train and valid) as well.")
@run_option
@data_option
@memory_option
@gpu_option
@force_option
@json_option
def command(
    wanted: tuple[str, ...],
    watched: tuple[str, ...],
    log: str | None,
    skip_unknown: bool,
    new_files: tuple[str, ...],
    only_new: bool,
    k: int,
    file: str | None,
    include_seen: bool,
    run: str,
    data: str | None,
    gpu: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print a user's top-K list in your own ids, with titles where the data has them.

    What the user watched in the training and validation splits is left out. --all FILE writes one row per user and
    place: user, rank, item, score.

    A user who came after training needs no training: --history names what they watched, in any order, and their
    preferences, their attention and their nearest users follow from it. Nor does a video: --new-items gives its features,
    as they were read, or as preprocess --feature-dim reduced them.

    \b
    Examples:
        dualgnn recommend --user u17 --k 10
        dualgnn recommend --history v0655,v1898,v2942
        dualgnn recommend --histories new_users.csv --all lists.parquet
        dualgnn recommend --user u17 --new-items visual.parquet --new-items textual.parquet --only-new
        dualgnn recommend --all lists.parquet --k 50
    """
    ways = [name for name, given in (("--user", wanted), ("--history", watched), ("--histories", log)) if given]
    if len(ways) > 1 or (not ways and file is None) or (file is not None and ways and ways != ["--histories"]):
        raise click.UsageError(
            "name users with --user ID, new ones with --history ID,ID,… or --histories LOG, or a file for all with --all FILE"
        )
    if skip_unknown and not (watched or log):
        raise click.UsageError("--skip-unknown belongs to --history and --histories")
    if only_new and not new_files:
        raise click.UsageError("--only-new belongs to --new-items")
    if file is not None:
        check_output(file, "--all", force)
    device = pick_device(gpu)
    if watched or log or new_files:
        found = _with_newcomers(wanted, watched, log, skip_unknown, new_files, only_new, run, data)
        if only_new and k > len(found.shown.item_ids):
            k = len(found.shown.item_ids)
            note(f"there are {k} new micro-videos: each list holds {k}")
    else:
        loaded, dataset, where = open_run(run, data)
        known = dataset.train.csr() + dataset.valid.csr()
        shown = Shown(dataset.user_ids, dataset.item_ids, dataset.titles)
        found = Found((loaded.user, loaded.item), known, shown, where)
    tables, seen = (found.tables[0].to(device), found.tables[1].to(device)), None if include_seen else found.seen
    if file is not None:
        count, rows = len(found.shown.user_ids), write_lists(file, tables, k, seen, found.shown)
        streams.kept(file)
        if as_json:
            result({"run": run, "data": found.data, "k": k, "file": file, "users": count, "rows": rows})
        else:
            print_text(f"{rows:,} rows for {count:,} users written to {clean(file)}")
        return

    from dualgnn_dgl.evaluation import top_k

    users = list(dict.fromkeys(wanted)) or found.shown.user_ids.tolist()
    chosen = _places(users, found) if wanted else None
    items, scores = (tensor.cpu().numpy() for tensor in top_k(*tables, k, seen, chosen))
    lists: list[dict[str, Any]] = [
        {"user": name, "items": _entries(items[row], scores[row], found.shown)} for row, name in enumerate(users)
    ]
    if as_json:
        result({"run": run, "data": found.data, "k": k, "users": lists})
        return
    print_text("\n\n".join(_text(entry["user"], entry["items"], include_seen) for entry in lists))
    for entry in lists:
        if len(entry["items"]) < k:
            left = f"all but {len(entry['items'])} of {len(found.shown.item_ids)} micro-videos"
            note(f"user {clean(entry['user'])} has watched {left}")


@dataclass(frozen=True)
class Shown:
    """The users (U,) and items (I,) of two tables, as people see them; `titles` (I,) or None."""

    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: np.ndarray | None


@dataclass(frozen=True)
class Found:
    """What to rank: tables (U, D) and (I, D), the pairs to leave out (U, I), names, and the data's folder."""

    tables: tuple[Tensor, Tensor]
    seen: sparse.csr_matrix
    shown: Shown
    data: str


def _places(users: list[str], found: Found) -> np.ndarray:
    """Their rows (B,); of an unknown one the message also says whom preprocessing has left out, and what still serves them."""
    from dualgnn_dgl.errors import DataError
    from dualgnn_dgl.ids import Ids

    try:
        return Ids(found.shown.user_ids, "user", found.data).places(users)
    except DataError as error:
        cores = [reason for reason in _left_out(found.data) if reason.endswith("-core")]
        if not cores:
            raise
        way = "for such a user name what they watched with --history"
        raise DataError(f"{error} (preprocess left out who is not in the {cores[0]}; {way})") from None


def _left_out(folder: str) -> dict[str, int]:
    """Why preprocessing left out how many rows, as its report says; nothing where there is no sound report."""
    from dualgnn_dgl.errors import DataError
    from dualgnn_dgl.manifest import read_report

    try:
        return dict(read_report(folder)["rows"]["dropped"])
    except (DataError, OSError, KeyError, TypeError, ValueError):
        return {}


def _with_newcomers(
    wanted: tuple[str, ...],
    watched: tuple[str, ...],
    log: str | None,
    skip_unknown: bool,
    new_files: tuple[str, ...],
    only_new: bool,
    run: str,
    data: str | None,
) -> Found:
    """The new users or all known ones, and the catalogue with the new videos below it or the new ones alone."""
    import numpy as np
    import torch
    from scipy import sparse

    from dualgnn_dgl import newcomers

    door = newcomers.load(run, data)
    dataset, where = door.dataset, door.item_ids.where
    item, item_ids, titles = door.item, dataset.item_ids, dataset.titles
    if watched or log:
        names, histories = _histories(watched, log, skip_unknown, door)
        pairs = door.pairs(histories, skip_unknown=skip_unknown)
        user, seen, user_ids = door.place(pairs), pairs.csr(), np.array(names, np.str_)
    else:
        user, seen, user_ids = door.user, dataset.train.csr() + dataset.valid.csr(), dataset.user_ids
    if new_files:
        from dualgnn_dgl.preprocess.new_items import read_new_items

        ids, features = read_new_items(new_files, door.town.modalities, dataset.item_ids, dataset.reductions)
        new, none = door.items(features), sparse.csr_matrix((len(user), len(ids)), dtype=np.float32)
        if only_new:
            item, item_ids, titles, seen = new, ids, None, none
        else:
            titles = None if titles is None else np.concatenate([titles, np.full(len(ids), "(new)")])
            item = torch.cat([item, new]).coalesce() if item.is_sparse else torch.cat([item, new])
            item_ids, seen = np.concatenate([item_ids, ids]), sparse.hstack([seen, none], "csr")
    return Found((user, item), seen, Shown(user_ids, item_ids, titles), where)


def _histories(
    watched: tuple[str, ...], log: str | None, skip_unknown: bool, door: Newcomers
) -> tuple[list[str], list[list[str]]]:
    """Names of the new users and what each watched; of a log, without those who watched nothing known if such ids are skipped."""
    if log is None:
        names = [f"new user {number}" for number in range(1, len(watched) + 1)]
        return names, [[name.strip() for name in text.split(",") if name.strip()] for text in watched]
    names, histories = read_histories(log)
    if skip_unknown:
        known = [bool(door.item_ids.places(history, skip=True).size) for history in histories]
        if not all(known):
            note(f"{known.count(False):,} of {len(known):,} users of {log} watched nothing that the data knows: left out")
        names = [name for name, keep in zip(names, known, strict=True) if keep]
        histories = [history for history, keep in zip(histories, known, strict=True) if keep]
    return names, histories


def read_histories(log: str) -> tuple[list[str], list[list[str]]]:
    """The users of a log and what each of them watched, in the order of their first rows."""
    import numpy as np

    from dualgnn_dgl.preprocess.reader import read

    raw = read(log).log
    order = np.argsort(raw.user, kind="stable")
    parts = np.split(raw.item_ids[raw.item[order]], np.cumsum(np.bincount(raw.user, minlength=len(raw.user_ids)))[:-1])
    return raw.user_ids.tolist(), [part.tolist() for part in parts]


def write_lists(
    path: str,
    tables: tuple[Tensor, Tensor],
    k: int,
    seen: sparse.csr_matrix | None,
    shown: Shown | Dataset,
    step: int = 16384,
) -> int:
    """Write user, rank (from 1), item and score of everyone's list to Parquet, `step` users at a time; returns the rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dualgnn_dgl.evaluation import top_k
    from dualgnn_dgl.files import atomic_file

    user_ids, item_ids = (pa.array(ids.tolist(), pa.string()) for ids in (shown.user_ids, shown.item_ids))
    schema = pa.schema([("user", pa.string()), ("rank", pa.int32()), ("item", pa.string()), ("score", pa.float32())])
    rows = 0
    with atomic_file(path) as temporary, temporary.open("wb") as handle, pq.ParquetWriter(handle, schema) as writer:
        for start in range(0, len(user_ids), step):
            users = np.arange(start, min(start + step, len(user_ids)))
            items, scores = (tensor.cpu().numpy() for tensor in top_k(*tables, k, seen, users))
            row, place = np.nonzero(items >= 0)
            columns = [
                user_ids.take(pa.array(users[row])),
                pa.array(place + 1, pa.int32()),
                item_ids.take(pa.array(items[row, place])),
                pa.array(scores[row, place]),
            ]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(row)
    return rows


def _entries(items: np.ndarray, scores: np.ndarray, shown: Shown) -> list[dict[str, Any]]:
    """One list (K,) in the user's own ids; shorter where fewer than K items were left."""
    entries = []
    for rank, item in enumerate(items[items >= 0].tolist(), start=1):
        entry = {"rank": rank, "item": str(shown.item_ids[item]), "score": float(scores[rank - 1])}
        if shown.titles is not None:
            entry["title"] = str(shown.titles[item])
        entries.append(entry)
    return entries


def _text(user: str, entries: list[dict[str, Any]], include_seen: bool) -> str:
    """A list for people. Columns are aligned by what a terminal shows: wide letters and emoji take two cells."""
    from rich.cells import cell_len, set_cell_size

    names = [clean(entry["item"]) for entry in entries]
    titles = [clean(entry.get("title", "")).strip() for entry in entries]
    titles = [title if cell_len(title) <= _TITLE_CELLS else set_cell_size(title, _TITLE_CELLS - 1) + "…" for title in titles]
    width = max([4, *map(cell_len, names)])
    lines = [f"user {clean(user)}" + (" (what was watched is included)" if include_seen else "")]
    lines.append(f"rank  {'item':<{width}}  {'score':>9}" + ("  title" if any(titles) else ""))
    for entry, name, title in zip(entries, names, titles, strict=True):
        padding = " " * (width - cell_len(name))
        lines.append(f"{entry['rank']:>4}  {name}{padding}  {entry['score']:>9.4f}  {title}".rstrip())
    return "\n".join(lines)
