"""Turns a raw log and feature files into a prepared data set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.exchange import check_free
from dualgnn_dgl.core.progress import Progress, Report
from dualgnn_dgl.core.vocabulary import LOG_OPTIONS
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.data import folder as prepared_folder
from dualgnn_dgl.data.raw import RawInput
from dualgnn_dgl.data.synthetic import demo
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.preprocess import Options, Say
from dualgnn_dgl.preprocess import prepare as run_steps
from dualgnn_dgl.preprocess.split import BY_TIME
from dualgnn_dgl.readers.reader import read

STEPS = 1000  # parts in which the progress of a long step is reported


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared data set.

    Attributes:
        dataset: the data set.
        report: sizes, and rows read, kept and dropped; see `preprocess.report.describe`.
        data: folder it was written to; None if it was not written.
    """

    dataset: Dataset
    report: dict[str, Any]
    data: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the report, the folder and the hash of the data, in the form of `--json`."""
        return self.report | {"data": self.data, "hash": self.dataset.hash}


@dataclass(frozen=True)
class LogColumns:
    """Names of a log's columns and files; None for those found by common names."""

    user_col: str | None = None
    item_col: str | None = None
    rating_col: str | None = None
    time_col: str | None = None
    split_col: str | None = None
    separator: str | None = None
    layout: str | None = None
    positive: Sequence[str] | None = None
    items: str | Path | None = None
    zero_is_missing: bool | None = None


def prepare(
    source: str | Path | RawInput | None = None,
    data: str | Path | None = None,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    split_col: str | None = None,
    separator: str | None = None,
    layout: str | None = None,
    positive: Sequence[str] | None = None,
    features: Sequence[str | Path] = (),
    items: str | Path | None = None,
    zero_is_missing: bool = False,
    min_rating: float | None = None,
    k_core: int | None = None,
    split: str | None = None,
    seed: int = 0,
    feature_dim: int | None = None,
    cooc_weight: str = "count",
    cooc_top: int = 200,
    impute: str | None = None,
    check: bool = False,
    force: bool = False,
    progress: Report | None = None,
) -> Prepared:
    """Turns a raw log and feature files into a prepared data set.

    Args:
        source: a log as a file or a folder, or raw tables already read; None for the built-in demo.
        data: folder to write; None to keep the data in memory alone.
        user_col, item_col, rating_col, time_col, split_col: names of the log's columns; None for
            those with common names.
        separator: separator of a text log; None to find it.
        layout: how the lines of a text log are written, one of `vocabulary.LAYOUTS`; None to find
            it.
        features: feature files, each named after its modality; by default those found in the folder
            `source`.
        items: item table; None for the one found in the folder `source`.
        positive: conditions "COLUMN OP VALUE", one of which a positive meets; an empty list takes
            every row, None a known column such as is_click.
        zero_is_missing: takes rows of features that are zero throughout as missing.
        min_rating, k_core, split, seed, feature_dim, cooc_weight, cooc_top, impute: see
            `preprocess.Options`.
        check: reads and checks everything, leaves out co-occurrence and homophily, and writes
            nothing.
        force: replaces a prepared folder.
        progress: called with each step as it begins, and with the share done of a long one.

    Raises:
        DualGNNError: if the log, the features, the options or the folder are not usable.
    """
    options = Options(
        min_rating, k_core, split, seed, feature_dim, cooc_weight, cooc_top, impute=impute
    )
    columns = LogColumns(
        user_col,
        item_col,
        rating_col,
        time_col,
        split_col,
        separator,
        layout,
        None if positive is None else list(positive),
        items,
        zero_is_missing or None,
    )
    if not isinstance(source, str | Path) and (
        features or any(value is not None for value in vars(columns).values())
    ):
        raise ConfigError(
            "columns, separator, features and items belong to a log: name it with --input; the "
            "built-in demo takes none of them"
        )
    say, target = _say(progress), None if check else data
    with ExitStack() as held:
        if target is not None:  # An occupied folder is refused before the long work.
            held.enter_context(locks.writing(target, "choose another --data"))
            check_free(target, prepared_folder.FOLDER, force=force)
        raw = _raw(source, columns, features, _unused(options, columns), say)
        made = run_steps(raw, options, co_occurrence=not check, progress=say)
        if target is not None:
            say(f"writing {target}")
            used = {"input": _name(source)} | made.report["options"]
            named = {name: getattr(columns, name) for name in (*LOG_OPTIONS, "positive")}
            used |= {name: value for name, value in named.items() if value is not None}
            prepared_folder.save(
                made.dataset, target, options=used, report=made.report, force=force
            )
    return Prepared(made.dataset, made.report, None if target is None else str(target))


def _say(report: Report | None) -> Say:
    """Turns the steps of preprocessing into events of progress."""
    step = ""

    def say(text: str, share: float | None = None, /) -> None:
        nonlocal step
        if report is None:
            return
        if share is None:
            step = text
            report(Progress(message=text))
        else:
            report(Progress(task=step, step=round(share * STEPS), steps=STEPS))

    return say


def _raw(
    source: str | Path | RawInput | None,
    columns: LogColumns,
    features: Sequence[str | Path],
    unused: Sequence[str],
    say: Say,
) -> RawInput:
    """Returns the raw tables, read if they are not yet in memory."""
    if isinstance(source, RawInput):
        return source
    if source is None:
        say("making the demo log")
        return demo()
    given = asdict(columns) | {"zero_is_missing": bool(columns.zero_is_missing)}
    return read(source, **given, unused=unused, features=features, progress=say)


def _unused(options: Options, columns: LogColumns) -> list[str]:
    """Returns the roles that decide nothing: no option asks for them, by name or by a rule."""
    unused = []
    if options.min_rating is None and columns.rating_col is None:
        unused.append("rating")
    if options.split not in BY_TIME and columns.time_col is None:
        unused.append("time")
    return unused


def _name(source: str | Path | RawInput | None) -> str | None:
    """Returns the log's name in the manifest; None for the demo.

    `train` checks the planted preferences of the demo.
    """
    if isinstance(source, RawInput):
        return source.name or "in memory"
    return None if source is None else str(source)
