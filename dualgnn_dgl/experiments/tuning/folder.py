"""The study folder: makes it, checks it, and opens Optuna's journal in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualgnn_dgl.core.exchange import recover, replace_folders
from dualgnn_dgl.core.files import atomic_file, json_digest
from dualgnn_dgl.core.folders import Kind
from dualgnn_dgl.core.inputs import refuse_special
from dualgnn_dgl.core.options import seal_toml
from dualgnn_dgl.errors import ConfigError, RunError, json_text
from dualgnn_dgl.experiments.journal import check_digest, check_journal, cut_tail, keep_digest
from dualgnn_dgl.experiments.tuning.plan import MARKER, Plan, check_same
from dualgnn_dgl.runs.checkpoint import run_toml, versions

if TYPE_CHECKING:
    import optuna

JOURNAL, BEST = "journal.jsonl", "run.toml"
JOURNAL_SHA256 = "journal.sha256.json"
FOLDER = Kind(
    MARKER,
    re.compile(r"study\.json|journal\.jsonl(\.lock)?|journal\.sha256\.json|run\.toml"),
    RunError,
)
# A trial ends early if its best value so far is among the worst tenth of the earlier trials at that
# epoch: not before BEFORE trials have run, nor before epoch WARM_UP. The usual half would end slow
# learners that win later: see benchmarks/LOG.md, 2026-11-25, and benchmarks/quality/pruners.py.
KEPT_PERCENT, BEFORE, WARM_UP = 90.0, 4, 10


def import_optuna() -> Any:
    """Imports Optuna, or raises an error that says how to install it."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "a search needs Optuna, which is not installed: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def prepare(folder: Path, plan: Plan, *, force: bool) -> None:
    """Checks the folder, and makes it a new study where needed or requested."""
    recover(folder)
    if (folder / MARKER).is_file() and not force:
        check_same(folder, plan)
        return
    record = plan.record() | {"versions": versions()}
    with replace_folders((folder, FOLDER), force=force) as (target,):
        (target / MARKER).write_text(
            json_text(record | {"self": json_digest(record)}, indent=2) + "\n", "utf-8"
        )


def open_journal(folder: Path, plan: Plan, *, prune: bool) -> optuna.Study:
    """Checks the journal and opens it as an Optuna study, without interrupted trials."""
    # Optuna would wait for the other end of a pipe.
    refuse_special(folder / JOURNAL, RunError)
    journal = (folder / JOURNAL).resolve()
    cut_tail(journal)
    check_digest(journal, folder / JOURNAL_SHA256)
    check_journal(folder / JOURNAL, plan.model, plan.space)
    package = import_optuna()
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    # A process that was killed left this lock file: this study is open in one process only.
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
    storage = package.storages.JournalStorage(
        JournalFileBackend(str(journal), JournalFileOpenLock(str(journal)))
    )
    worst = package.pruners.PercentilePruner(
        KEPT_PERCENT, n_startup_trials=BEFORE, n_warmup_steps=WARM_UP
    )
    study: optuna.Study = package.create_study(
        storage=storage,
        study_name=plan.model,
        direction="maximize",
        pruner=worst if prune else package.pruners.NopPruner(),
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(package.trial.TrialState.RUNNING,)):
        # It was interrupted, and its values are proposed again.
        study.tell(trial.number, state=package.trial.TrialState.FAIL)
    return study


def keep(folder: Path) -> None:
    """Writes the digest of the journal, which ends with a finished trial."""
    keep_digest((folder / JOURNAL).resolve(), folder / JOURNAL_SHA256)


def write_best(folder: Path, plan: Plan, params: dict[str, Any]) -> None:
    """Writes the best configuration so far."""
    with atomic_file(folder / BEST) as temporary:
        content = run_toml(plan.model, *plan.resolved(params))
        temporary.write_text(seal_toml(content), "utf-8")


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns errors of a damaged journal into one line."""
    try:
        yield
    except (ValueError, KeyError, AssertionError, TypeError, IndexError, AttributeError) as error:
        detail = " ".join(str(error).split())[:80] or type(error).__name__
        raise RunError(
            f"{folder / JOURNAL} is damaged ({detail}): begin again with --force, or choose "
            f"another --study"
        ) from None
