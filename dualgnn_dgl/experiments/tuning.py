"""Searches for a model's options: Optuna proposes them, training measures them on validation.

study.json      model, data hash, the configuration the search starts from, the values to try,
                seed
journal.jsonl   every trial, epoch by epoch: Optuna's journal, a line of JSON an event
run.toml        the best configuration so far, for `dualgnn train --config`

Optuna's journal *file* is read and written as JSON, line by line; nothing in it is unpickled. (Its
Redis backend and its CMA-ES sampler do pickle, and are not used.) `optuna-dashboard` shows it.
Trial 0 is always the configuration that the search starts from, so no search ends worse than that.
The values to try are `SEARCH` of the model's class.

A search can be stopped and continued. Proposals depend only on the seed and on the finished trials,
so an interrupted search proposes the same as an uninterrupted one. It sees training and validation
pairs only.

Sources: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011 (TPE);
Akiba et al., Optuna, KDD 2019.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dualgnn_dgl import models
from dualgnn_dgl.core import locks, memory
from dualgnn_dgl.core.exchange import recover, replace_folders
from dualgnn_dgl.core.files import atomic_file, json_digest, read_json
from dualgnn_dgl.core.folders import Kind
from dualgnn_dgl.core.inputs import refuse_special
from dualgnn_dgl.core.options import Options, build, check_saved, keys, seal_toml
from dualgnn_dgl.core.progress import Progress
from dualgnn_dgl.core.schema import (
    EXTENSION,
    HEX64,
    NAME,
    SETTINGS,
    VERSIONS,
    check,
    dict_of,
    list_of,
    one_of,
    record,
    scalar,
)
from dualgnn_dgl.errors import ConfigError, RunError, json_text
from dualgnn_dgl.experiments.journal import check_digest, check_journal, cut_tail, keep_digest
from dualgnn_dgl.runs.checkpoint import run_toml, versions
from dualgnn_dgl.training import Inputs, TrainConfig, train_model

if TYPE_CHECKING:
    import optuna

MARKER, JOURNAL, BEST = "study.json", "journal.jsonl", "run.toml"
JOURNAL_SHA256 = "journal.sha256.json"
FOLDER = Kind(
    MARKER,
    re.compile(r"study\.json|journal\.jsonl(\.lock)?|journal\.sha256\.json|run\.toml"),
    RunError,
)
FORMAT = 1
# A trial ends early if its best value so far is among the worst tenth of the earlier trials at that
# epoch: not before BEFORE trials have run, nor before epoch WARM_UP. The usual half would end slow
# learners that win later: see benchmarks/LOG.md, 2026-11-25, and benchmarks/quality/pruners.py.
KEPT_PERCENT, BEFORE, WARM_UP = 90.0, 4, 10
RANDOM_TRIALS = 8  # trials before TPE proposes values
REPEATS = 20  # proposals by TPE before untried values are drawn at random
_FIELDS = {
    "format": one_of(FORMAT),
    "model": one_of(*models.MODELS),
    "config": SETTINGS,
    "train": SETTINGS,
    "data": HEX64,
}
STUDY_SCHEMA = record(
    _FIELDS | {"space": dict_of(NAME, list_of(scalar, 1)), "versions": VERSIONS}, EXTENSION
)


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        number: number, from 0.
        state: 'complete', 'pruned' (ended early, for being among the worst), or 'failed'.
        params: values of the searched options.
        value: best validation metric.
        epoch: epoch of that value.
        epochs: number of epochs trained.
        seconds: wall-clock time.
        error: reason of a failure.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    epoch: int
    epochs: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """The model, data and values of a search.

    Attributes:
        model: name of the model.
        config: options of the model that the search starts from.
        train: options of training that the search starts from.
        data_hash: hash of the data.
        space: a key of the model's `Config` or of `TrainConfig` → the values to try.
    """

    model: str
    config: Options
    train: TrainConfig
    data_hash: str
    space: dict[str, tuple[Any, ...]]

    def record(self) -> dict[str, Any]:
        """Returns the plan as study.json keeps it."""
        return {
            "format": FORMAT,
            "model": self.model,
            "config": asdict(self.config),  # type: ignore[call-overload]
            "train": asdict(self.train),
            "data": self.data_hash,
            "space": {key: list(values) for key, values in self.space.items()},
        }

    def start(self) -> dict[str, Any]:
        """Returns the values of the searched keys that the search starts from."""
        base = asdict(self.config) | asdict(self.train)  # type: ignore[call-overload]
        return {key: base[key] for key in self.space}

    def resolved(self, params: Mapping[str, Any]) -> tuple[Options, TrainConfig]:
        """Returns model and training configuration with the values `params`."""
        kind = type(self.config)
        values = asdict(self.config)  # type: ignore[call-overload]
        values |= {key: value for key, value in params.items() if key in keys(kind)}
        train = asdict(self.train) | {
            key: value for key, value in params.items() if key in keys(TrainConfig)
        }
        return build(kind, values), build(TrainConfig, train)


def make_plan(
    model: str, config: Options, train: TrainConfig, data_hash: str, fixed: Collection[str] = ()
) -> Plan:
    """Returns a search over the model's `SEARCH` values, without the `fixed` keys.

    The values it starts from are tried as well.
    """
    base = asdict(config) | asdict(train)  # type: ignore[call-overload]
    space = {}
    for key, values in models.model_class(model).SEARCH.items():
        if key not in fixed:
            space[key] = values if base[key] in values else (*values, base[key])
    return Plan(model, config, train, data_hash, space)


def read_plan(folder: str | Path) -> Plan | None:
    """Reads the plan of the study in `folder`; None where there is none.

    Raises:
        RunError: if study.json is damaged or of another format.
    """
    path = Path(folder) / MARKER
    recover(folder)
    if not path.is_file():
        return None
    info, remedy = read_json(path, RunError), "choose another --study"
    if info.pop("self", None) not in (None, json_digest(info)):
        raise RunError(
            f"{path} is not what was written there (damaged or edited): begin again with --force, "
            f"or {remedy}"
        )
    check(STUDY_SCHEMA, info, path, RunError, f"damaged, or written by another version; {remedy}")
    kind = models.model_class(info["model"]).Config
    for owner, values in ((kind, info["config"]), (TrainConfig, info["train"])):
        check_saved(owner, values, path, RunError, remedy)
    config, train = build(kind, info["config"]), build(TrainConfig, info["train"])
    plan = Plan(
        info["model"],
        config,
        train,
        info["data"],
        {key: tuple(values) for key, values in info["space"].items()},
    )
    known = asdict(config) | asdict(train)  # type: ignore[call-overload]
    for key, values in plan.space.items():
        if (
            key not in known
            or len(set(map(repr, values))) != len(values)
            or repr(known[key]) not in map(repr, values)
        ):
            raise RunError(
                f"{path}: space.{key[:80]} does not list values of an option, the present one "
                f"among them: {remedy}"
            )
        for value in values:
            check_saved(
                kind if key in keys(kind) else TrainConfig, {key: value}, path, RunError, remedy
            )
    return plan


class Study:
    """A search in its folder, open in one process at a time, as a context manager.

    Args:
        folder: study folder; made if it does not exist.
        plan: the search; it must be that of the study if there is one already.
        prune: ends trials early that are among the worst.
        force: begins again where there is a study already.

    Raises:
        ConfigError: if Optuna is not installed.
        RunError: if the folder holds something else, a study of something else, a damaged one, or
            one that another process works on.
    """

    def __init__(
        self, folder: str | Path, plan: Plan, *, prune: bool = True, force: bool = False
    ) -> None:
        self.folder, self.plan, self.prune = Path(folder), plan, prune
        self._optuna = _optuna()
        self._force = force
        self._held = ExitStack()

    def __enter__(self) -> Study:
        with ExitStack() as held:
            held.enter_context(locks.writing(self.folder, "choose another --study"))
            self._prepare()
            with _readable(self.folder):
                self._study = self._open()
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _prepare(self) -> None:
        """Checks the folder, and makes it a new study where needed or requested."""
        recover(self.folder)
        begun = (self.folder / MARKER).is_file()
        if begun and not self._force:
            _check_same(self.folder, self.plan)
            return
        record = self.plan.record() | {"versions": versions()}
        with replace_folders((self.folder, FOLDER), force=self._force) as (target,):
            (target / MARKER).write_text(
                json_text(record | {"self": json_digest(record)}, indent=2) + "\n", "utf-8"
            )

    def _open(self) -> optuna.Study:
        # Optuna would wait for the other end of a pipe.
        refuse_special(self.folder / JOURNAL, RunError)
        journal = (self.folder / JOURNAL).resolve()
        cut_tail(journal)
        check_digest(journal, self.folder / JOURNAL_SHA256)
        check_journal(self.folder / JOURNAL, self.plan.model, self.plan.space)
        optuna = self._optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        # A process that was killed left this lock file: this study is open in one process only.
        journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
        storage = optuna.storages.JournalStorage(
            JournalFileBackend(str(journal), JournalFileOpenLock(str(journal)))
        )
        hopeless = optuna.pruners.PercentilePruner(
            KEPT_PERCENT, n_startup_trials=BEFORE, n_warmup_steps=WARM_UP
        )
        pruner = hopeless if self.prune else optuna.pruners.NopPruner()
        study = optuna.create_study(
            storage=storage,
            study_name=self.plan.model,
            direction="maximize",
            pruner=pruner,
            load_if_exists=True,
        )
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            # It was interrupted, and its values are proposed again.
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return study

    def trials(self) -> list[Trial]:
        """Returns the finished trials in the order they were made, numbered from 0.

        Interrupted ones do not count.
        """
        found: list[Trial] = []
        with _readable(self.folder):
            for frozen in self._study.get_trials(deepcopy=False):
                attrs = frozen.user_attrs
                if "state" in attrs and frozen.state.name in ("COMPLETE", "PRUNED"):
                    shown = (
                        attrs["value"],
                        attrs["epoch"],
                        attrs["epochs"],
                        attrs["seconds"],
                        attrs.get("error", ""),
                    )
                    found.append(Trial(len(found), attrs["state"], dict(frozen.params), *shown))
        return found

    def best(self) -> Trial | None:
        """Returns the best trial among those that ran to their end; the first of equals."""
        complete = [trial for trial in self.trials() if trial.state == "complete"]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)

    def tune(
        self,
        inputs: Inputs,
        trials: int,
        *,
        device: torch.device | str = "cpu",
        begin: Callable[[int, dict[str, Any]], Callable[[Progress], None]] | None = None,
        end: Callable[[Trial], None] | None = None,
    ) -> bool:
        """Runs trials until the study has `trials` finished ones.

        Args:
            inputs: data and graph that every trial is trained on.
            trials: number of trials in all, earlier ones included.
            device: device of the trainings.
            begin: called with number and values of a trial; returns the callback for its progress.
            end: called with each finished trial.

        Returns:
            Whether all trials were run; False if every combination of values was tried before.

        Raises:
            ConfigError: if there are no validation pairs to choose by.
            KeyboardInterrupt: on Ctrl-C; the current trial is then dropped, and everything before
                it kept.
        """
        if not len(inputs.dataset.valid):
            raise ConfigError("the data has no validation split to choose by: prepare it with one")
        while len(done := self.trials()) < trials:
            trial = self._propose(done)
            if trial is None:
                return False
            progress = begin(len(done), dict(trial.params)) if begin else None
            finished = self._run(trial, len(done), inputs, device, progress)
            keep_digest((self.folder / JOURNAL).resolve(), self.folder / JOURNAL_SHA256)
            best = self.best()
            if best is not None and best.number == finished.number:
                with atomic_file(self.folder / BEST) as temporary:
                    temporary.write_text(
                        seal_toml(run_toml(self.plan.model, *self.plan.resolved(best.params))),
                        "utf-8",
                    )
            if end is not None:
                end(finished)
        return True

    def _propose(self, done: list[Trial]) -> optuna.Trial | None:
        """Returns the next trial with values that were not tried yet; None where all were."""
        optuna, space, index = self._optuna, self.plan.space, len(done)
        tried = {_key(trial.params) for trial in done}
        if len(tried) >= math.prod(map(len, space.values())):
            return None
        choices = {
            key: optuna.distributions.CategoricalDistribution(values)
            for key, values in space.items()
        }
        if not done:
            return self._fixed(self.plan.start(), choices)
        for attempt in range(REPEATS):
            seed = np.random.SeedSequence([self.plan.train.seed, index, attempt]).generate_state(1)[
                0
            ]
            self._study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=RANDOM_TRIALS, seed=int(seed)
            )
            trial = self._study.ask(choices)
            if _key(trial.params) not in tried:
                return trial
            # Training is deterministic; running these values again gives the same score.
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        draw = random.Random(f"{self.plan.train.seed} {index}")
        while True:
            params = {key: draw.choice(values) for key, values in space.items()}
            if _key(params) not in tried:
                return self._fixed(params, choices)

    def _fixed(self, params: dict[str, Any], choices: Mapping[str, Any]) -> optuna.Trial:
        """Returns a trial with exactly these values."""
        self._study.enqueue_trial(params)
        return self._study.ask(dict(choices))

    def _run(
        self,
        trial: optuna.Trial,
        number: int,
        inputs: Inputs,
        device: torch.device | str,
        progress: Callable[[Progress], None] | None,
    ) -> Trial:
        """Trains once and records the result in the journal."""
        last: list[Progress] = []
        first, state, error = 0, "complete", ""

        def report(now: Progress) -> None:
            nonlocal first
            if progress is not None:
                progress(now)
            if now.finished and now.best is not None:
                if not last or now.best > (last[-1].best or 0.0):
                    first = now.epoch
                last[:] = [now]
                trial.report(now.best, now.epoch)
                if trial.should_prune():
                    raise _Pruned

        config, options = self.plan.resolved(trial.params)
        value, epochs, started = None, 0, time.perf_counter()
        try:
            found = train_model(
                self.plan.model, inputs, config, options, device=device, report=report
            ).fit
            if found.interrupted:
                raise KeyboardInterrupt
            value, first, epochs = found.best_value, found.best_epoch, len(found.history)
        except _Pruned:
            state, value, epochs = "pruned", last[-1].best, last[-1].epoch
        except (RunError, MemoryError, RuntimeError) as failure:
            if not isinstance(failure, RunError) and not memory.ran_out(failure):
                raise
            state, error = "failed", (str(failure).splitlines() or ["not enough memory"])[0][:1000]
        except KeyboardInterrupt:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            raise
        finished = Trial(
            number,
            state,
            dict(trial.params),
            value,
            first,
            epochs,
            time.perf_counter() - started,
            error,
        )
        for name in ("state", "value", "epoch", "epochs", "seconds", "error"):
            trial.set_user_attr(name, getattr(finished, name))
        if state == "complete":
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
        return finished


class _Pruned(Exception):
    """Ends a training that is among the worst."""


def _optuna() -> Any:
    """Imports Optuna, or raises an error that says how to install it."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "a search needs Optuna, which is not installed: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)


def _check_same(folder: Path, plan: Plan) -> None:
    """Raises `RunError` unless the study in the folder has the same plan."""
    found, wanted = read_plan(folder), plan.record()
    assert found is not None
    names = {
        "model": "another model",
        "data": "other data",
        "config": "another configuration",
        "train": "other training options",
    }
    names["space"] = "other values to try"
    for key, what in names.items():
        was, now = found.record()[key], wanted[key]
        if was != now:
            shown = f" ({was}, now {now})" if key == "model" else ""
            if isinstance(was, dict):
                shown = "".join(
                    f" ({n}: {was.get(n)}, now {now.get(n)})"
                    for n in {**was, **now}
                    if was.get(n) != now.get(n)
                )
            raise RunError(
                f"{folder} is a study of {what}{shown}: choose another --study, or begin again "
                f"with --force"
            )


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turns errors of a damaged journal into one line."""
    try:
        yield
    except (ValueError, KeyError, AssertionError, TypeError, IndexError, AttributeError) as error:
        detail = " ".join(str(error).split())[:80] or type(error).__name__
        raise RunError(
            f"{folder / JOURNAL} is damaged ({detail}): begin again with --force, or choose "
            f"another --study"
        ) from None
