"""What a training into a run folder sets out to do.

Begin, resume what was cut off, or nothing since the run is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dualgnn_dgl.core import schema
from dualgnn_dgl.core.devices import CPU, pick_device
from dualgnn_dgl.core.options import Options, check_saved, recorded
from dualgnn_dgl.data import Dataset
from dualgnn_dgl.errors import ConfigError, DataError, RunError
from dualgnn_dgl.models import MODELS, model_class
from dualgnn_dgl.runs.checkpoint import MARKER, Run, load_run, locate, reference, versions
from dualgnn_dgl.runs.settings import Settings
from dualgnn_dgl.runs.working import BEGUN, Checkpoints
from dualgnn_dgl.training import TrainConfig
from dualgnn_dgl.training.state import Snapshot

# option of the verb → attribute of `Checkpoints`
KEPT = {
    "checkpoint_every": "every",
    "checkpoint_minutes": "minutes",
    "keep_last": "last",
    "keep_checkpoints": "leave",
}

# What a checkpoint says of the training's options and data; `begin` writes it.
ABOUT_SCHEMA = schema.record(
    {
        "model": schema.one_of(*MODELS),
        "config": schema.SETTINGS,
        "train": schema.SETTINGS,
        "data": schema.record(
            {"path": schema.TEXT, "hash": schema.HEX64}, {"from_run": schema.TEXT}
        ),
        "device": schema.DEVICE,
        "versions": schema.VERSIONS,
    },
    {
        "keep": schema.record(
            {
                "every": schema.whole(1),
                "minutes": schema.number(0),
                "last": schema.whole(1),
                "leave": schema.FLAG,
            }
        ),
        "leave": schema.FLAG,  # of versions that kept nothing else
    },
)

# The settings out of the options given now over those of an earlier training, see
# `settings.resolve`.
Resolve = Callable[[Mapping[str, Any] | None], Settings]


@dataclass(frozen=True)
class Plan:
    """What to train, on what; `about` and `start` are the checkpoint's where there is one."""

    name: str
    config: Options
    train: TrainConfig
    data: str
    device: torch.device
    about: Mapping[str, Any] | None = None
    start: Snapshot | None = None
    finished: Run | None = None  # a run that needs nothing more


def refuse_unfinished(hook: Checkpoints) -> None:
    """Raise `RunError` if beginning anew would cost checkpoints."""
    if name := next(hook.names(), None):
        epoch = int(name.split("-")[1])
        raise RunError(
            f"{hook.folder} holds a training that was cut off in epoch {epoch}: go on with "
            f"--resume, or begin anew with --force"
        )


def go_on(
    hook: Checkpoints,
    resolve: Resolve,
    data: str | None,
    device: int | str | torch.device | None,
    explicit: Collection[str] = (),
) -> Plan | None:
    """The plan that continues from the newest valid checkpoint or from the start, or that finds the
    run finished.

    None if nothing is known of an earlier training. The hook takes the training's own way of
    keeping checkpoints.

    Parameters
    ----------
    data, device : as given; None takes what the training was begun with.
    explicit : keys of `KEPT` that were given and replace the training's own.

    Raises
    ------
    RunError, ConfigError
        if options or device are others than those it was begun with, or the checkpoints of an
        unfinished run are gone.
    """
    found = hook.newest()
    done = None
    try:
        if (hook.run / MARKER).is_file():
            done = load_run(hook.run)
    except RunError as error:
        if found is None:
            raise
        hook.say(f"{error}: it will be replaced")
    about: Mapping[str, Any] | None = (
        found.about if found else hook.begun() or (done.info if done else None)
    )
    if about is None:
        hook.say(f"there is no checkpoint in {hook.folder}: training begins at the beginning")
        return None
    written = hook.folder / (f"{found.name}.json" if found else BEGUN)
    of_run = done is not None and about is done.info
    _check_about(about, hook.run / MARKER if of_run else written, whole=not of_run)
    for name, attribute in KEPT.items():
        if name not in explicit and attribute in about.get("keep", {}):
            setattr(hook, attribute, about["keep"][attribute])
    name, config, train = resolve(about)
    if found is not None:
        _check_width(config, found.snapshot)
    data = data or locate(about["data"], hook.run)
    plan = Plan(
        name, config, train, data, _device(about, device), about, found.snapshot if found else None
    )
    if done is not None and not done.info["interrupted"] and _same(done.info, plan, about):
        return replace(plan, finished=done)
    if found is None and not of_run:
        how = "training starts from the beginning, with the options it was begun with"
        hook.say(f"{hook.folder} holds no checkpoint yet: {how}")
        return plan
    if found is None:
        cause = "was stopped early" if done and done.info["interrupted"] else "is finished"
        raise RunError(
            f"{hook.run} {cause} and has no checkpoints to go on from (see --keep-checkpoints): "
            f"train anew with --force"
        )
    where = found.snapshot.info
    hook.say(
        f"going on from {found.name}: epoch {where['epoch']}, {where['step']} batches of it done"
    )
    return plan


def _check_about(about: Mapping[str, Any], path: Path, *, whole: bool) -> None:
    """Raises `RunError` unless the saved options are valid.

    `whole` where `about` is that of a checkpoint, not a run.json.
    """
    remedy = "begin again with --force"
    if whole:
        schema.check(ABOUT_SCHEMA, about, path, RunError, remedy)
    check_saved(model_class(about["model"]).Config, about["config"], path, RunError, remedy)
    check_saved(TrainConfig, about["train"], path, RunError, remedy)


def _check_width(config: Options, start: Snapshot) -> None:
    """Raises `RunError` for a model that is wider than what is kept of it, before memory is taken
    for it.
    """
    names = [name for name in start.tensors if name.startswith("model/")]
    widest, width = (
        max((size for name in names for size in start.tensors[name].shape), default=0),
        getattr(config, "width", 0),
    )
    if width > widest:
        raise RunError(
            f"{start.where}: config.width is {width}, no kept parameter is that wide: begin again "
            f"with --force"
        )


def _same(done: Mapping[str, Any], plan: Plan, about: Mapping[str, Any]) -> bool:
    """Whether a finished run is the one that the plan would end in."""
    made = (done["model"], {**plan.config.REMOVED, **done["config"]}, done["train"])
    wanted = (plan.name, recorded(plan.config), asdict(plan.train))
    return made == wanted and done["data"]["hash"] == about["data"]["hash"]


def _device(about: Mapping[str, Any], choice: int | str | torch.device | None) -> torch.device:
    """The device it was begun on, or another of its kind."""
    kind, _, index = about["device"].partition(":")
    if choice is None:
        choice = CPU if kind == "cpu" else int(index or 0)
    device = pick_device(choice)
    if device.type != kind:
        raise ConfigError(
            f"the training was begun on {about['device']}, not on {device}: their random numbers "
            f"differ; leave the device out"
        )
    return device


def check_data(plan: Plan, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Check that a training continues on the data it was begun with, and say so where versions
    differ.

    Raises
    ------
    DataError
        if the data are others.
    """
    if plan.about is None:
        return
    before = plan.about["data"]["hash"]
    if before != dataset.hash:
        raise DataError(
            f"the training was begun on other data (hash {before[:12]}…, {plan.data} has "
            f"{dataset.hash[:12]}…): "
            "point --data to the folder it was begun on, or begin again with --force"
        )
    then = plan.about["versions"]
    differ = [
        f"{key} {then.get(key)} → {value}"
        for key, value in _versions().items()
        if then.get(key) != value
    ]
    if differ and plan.start is not None:
        say(
            f"other versions than it was begun with ({', '.join(differ)}): the last bits of the "
            f"result may differ"
        )


def begin(hook: Checkpoints, plan: Plan, dataset: Dataset) -> None:
    """Tell the hook where to continue, and have it write down what the training is begun with."""
    hook.start = plan.start
    about = {
        "model": plan.name,
        "config": asdict(plan.config),  # type: ignore[call-overload]
        "train": asdict(plan.train),
        "data": reference(Path(plan.data), hook.run) | {"hash": dataset.hash},
        "device": str(plan.device),
        "versions": _versions(),
        "keep": {attribute: getattr(hook, attribute) for attribute in KEPT.values()},
    }
    hook.begin(about)


def _versions() -> dict[str, str]:
    return {**versions(), "threads": str(torch.get_num_threads())}
