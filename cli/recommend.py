"""`dualgnn recommend`: a user's list in their own ids, or the lists of all users as a file."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import click

from dualgnn_dgl.cli.device import gpu_option, pick_device
from dualgnn_dgl.cli.evaluate import check_output, data_option, open_run
from dualgnn_dgl.cli.show import force_option, json_option, note, result, run_option
from dualgnn_dgl.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from scipy import sparse
    from torch import Tensor

    from dualgnn_dgl.data import Dataset

_ESCAPE = re.compile(r"(\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_JOINERS = "\u200c\u200d"  # hold emoji and some scripts together
_TITLE_CELLS = 100


@click.command(short_help="Print a user's top-K list in your own ids.")
@click.option("--user", "wanted", multiple=True, metavar="ID", help="A user, by your own id; repeatable.")
@click.option("--k", type=int, default=10, show_default=True, help="List length.")
@click.option("--all", "file", default=None, metavar="FILE", help="Write the lists of all users to this Parquet file instead.")
@click.option("--include-seen", is_flag=True, help="Rank what the user has watched (train and valid) as well.")
@run_option
@data_option
@gpu_option
@force_option
@json_option
def command(
    wanted: tuple[str, ...],
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

    \b
    Examples:
        dualgnn recommend --user u17 --k 10
        dualgnn recommend --all lists.parquet --k 50
    """
    if bool(wanted) == (file is not None):
        raise click.UsageError("name one or more users with --user ID, or a file for all of them with --all FILE")
    if file is not None:
        check_output(file, "--all", force)
    device = pick_device(gpu)
    loaded, dataset, data = open_run(run, data)
    seen = None if include_seen else dataset.train.csr() + dataset.valid.csr()
    tables = loaded.user.to(device), loaded.item.to(device)
    if file is not None:
        rows = write_lists(file, tables, k, seen, dataset)
        if as_json:
            result({"run": run, "data": data, "k": k, "file": file, "users": dataset.num_users, "rows": rows})
        else:
            click.echo(f"{rows:,} rows for {dataset.num_users:,} users written to {file}")
        return

    import numpy as np

    from dualgnn_dgl.evaluation import top_k

    wanted = tuple(dict.fromkeys(wanted))
    users = np.array([find(dataset.user_ids, name, data) for name in wanted], dtype=np.int64)
    items, scores = (tensor.cpu().numpy() for tensor in top_k(*tables, k, seen, users))
    lists: list[dict[str, Any]] = [
        {"user": name, "items": _entries(items[row], scores[row], dataset)} for row, name in enumerate(wanted)
    ]
    if as_json:
        result({"run": run, "data": data, "k": k, "users": lists})
        return
    click.echo("\n\n".join(_text(entry["user"], entry["items"], include_seen) for entry in lists))
    for entry in lists:
        if len(entry["items"]) < k:
            note(f"user {clean(entry['user'])} has watched all but {len(entry['items'])} of {dataset.num_items} micro-videos")


def find(ids: np.ndarray, name: str, data: str) -> int:
    """Internal number of the user `name` among `ids` (U,).

    Raises
    ------
    DataError
        if it is not there; the message names the nearest ids.
    """
    place = (ids == name).nonzero()[0]
    if place.size:
        return int(place[0])
    close = [f"'{clean(other)}'" for other in nearest(ids, name)]
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"ids there look like '{clean(ids[0])}'"
        if len(ids)
        else "it holds none"
    )
    raise DataError(f"unknown user '{clean(name)}' in {data}; {hint}")


def nearest(ids: np.ndarray, name: str, candidates: int = 200) -> list[str]:
    """Up to three ids that look like `name`, out of a bounded number of candidates.

    difflib is slow, so it chooses only among the ids that agree with `name` in most places, counted from the left
    and from the right: one letter too many or too few leaves all places before it and all behind it in agreement.

    >>> import numpy as np
    >>> nearest(np.array(["u1", "u22", "video"]), "u2")
    ['u22', 'u1']
    """
    import difflib

    import numpy as np

    if not name or not len(ids):
        return []
    ids = np.ascontiguousarray(ids, dtype=np.str_)
    letters = ids.view(np.uint32).reshape(len(ids), -1)  # (U, width) code points, 0 beyond the end
    length = np.char.str_len(ids)  # (U,)
    agree = np.zeros(len(ids), dtype=np.int64)
    for place in range(min(letters.shape[1], len(name))):
        agree += letters[:, place] == ord(name[place])
        agree += (letters[np.arange(len(ids)), length - 1 - place] == ord(name[-1 - place])) & (length > place)
    best = ids[np.argsort(-agree, kind="stable")[:candidates]].tolist()
    return difflib.get_close_matches(name, best, n=3, cutoff=0.5)


def write_lists(
    path: str, tables: tuple[Tensor, Tensor], k: int, seen: sparse.csr_matrix | None, dataset: Dataset, step: int = 16384
) -> int:
    """Write user, rank (from 1), item and score of everyone's list to Parquet, `step` users at a time; returns the rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dualgnn_dgl.evaluation import top_k
    from dualgnn_dgl.files import atomic_file

    user_ids, item_ids = pa.array(dataset.user_ids.tolist(), pa.string()), pa.array(dataset.item_ids.tolist(), pa.string())
    schema = pa.schema([("user", pa.string()), ("rank", pa.int32()), ("item", pa.string()), ("score", pa.float32())])
    rows = 0
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, dataset.num_users, step):
            users = np.arange(start, min(start + step, dataset.num_users))
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


def clean(text: str) -> str:
    r"""Text that cannot disturb a terminal: no escape sequences, no control or direction characters, one line.

    >>> clean("\x1b[31mred\x07\n tail\u202e")
    'red tail'
    """
    text = re.sub(r"\s+", " ", _ESCAPE.sub("", str(text)))
    return "".join(letter for letter in text if letter in _JOINERS or unicodedata.category(letter) not in ("Cc", "Cf", "Cs"))


def _entries(items: np.ndarray, scores: np.ndarray, dataset: Dataset) -> list[dict[str, Any]]:
    """One list (K,) in the user's own ids; shorter where fewer than K items were left."""
    entries = []
    for rank, item in enumerate(items[items >= 0].tolist(), start=1):
        entry = {"rank": rank, "item": str(dataset.item_ids[item]), "score": float(scores[rank - 1])}
        if dataset.titles is not None:
            entry["title"] = str(dataset.titles[item])
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
