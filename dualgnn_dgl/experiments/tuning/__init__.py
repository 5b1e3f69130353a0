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

from dualgnn_dgl.experiments.tuning.folder import BEST, WARM_UP
from dualgnn_dgl.experiments.tuning.plan import STUDY_SCHEMA, Plan, make_plan, read_plan
from dualgnn_dgl.experiments.tuning.search import Study
from dualgnn_dgl.experiments.tuning.trial import Trial

__all__ = [
    "BEST",
    "STUDY_SCHEMA",
    "WARM_UP",
    "Plan",
    "Study",
    "Trial",
    "make_plan",
    "read_plan",
]
