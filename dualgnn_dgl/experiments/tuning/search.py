"""Runs the trials of a study until it has the requested number."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dualgnn_dgl.core import locks
from dualgnn_dgl.core.progress import Progress
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.experiments.tuning.folder import (
    import_optuna,
    keep,
    open_journal,
    prepare,
    readable,
    write_best,
)
from dualgnn_dgl.experiments.tuning.plan import Plan
from dualgnn_dgl.experiments.tuning.trial import Trial, run_trial
from dualgnn_dgl.training import Inputs

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 8  # trials before TPE proposes values
REPEATS = 20  # proposals by TPE before untried values are drawn at random


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
        self._optuna = import_optuna()
        self._force = force
        self._held = ExitStack()

    def __enter__(self) -> Study:
        with ExitStack() as held:
            held.enter_context(locks.writing(self.folder, "choose another --study"))
            prepare(self.folder, self.plan, force=self._force)
            with readable(self.folder):
                self._study = open_journal(self.folder, self.plan, prune=self.prune)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def trials(self) -> list[Trial]:
        """Returns the finished trials in the order they were made, numbered from 0.

        Interrupted ones do not count.
        """
        found: list[Trial] = []
        with readable(self.folder):
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
            keep(self.folder)
            best = self.best()
            if best is not None and best.number == finished.number:
                write_best(self.folder, self.plan, best.params)
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
        states, started = self._optuna.trial.TrialState, time.perf_counter()
        try:
            found = run_trial(trial, self.plan, inputs, device, progress)
        except KeyboardInterrupt:
            self._study.tell(trial, state=states.FAIL)
            raise
        seconds = time.perf_counter() - started
        for name in ("state", "value", "epoch", "epochs"):
            trial.set_user_attr(name, getattr(found, name))
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("error", found.error)
        if found.state == "complete":
            self._study.tell(trial, found.value)
        else:
            self._study.tell(trial, state=states.PRUNED)
        return Trial(number, params=dict(trial.params), seconds=seconds, **vars(found))


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)
