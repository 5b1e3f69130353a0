"""Decides what a training into a run folder does: begin, resume, or nothing for a finished run."""

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
from dualgnn_dgl.runs.working import BEGUN, Checkpoint, Checkpoints
from dualgnn_dgl.training import TrainConfig
from dualgnn_dgl.training.state import Snapshot

# Option of the verb → attribute of `Checkpoints`.
KEPT = {
    "checkpoint_every": "every",
    "checkpoint_minutes": "minutes",
    "keep_last": "last",
    "keep_checkpoints": "leave",
}

# Options and data of a training as a checkpoint keeps them; `begin` writes them.
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
        "leave": schema.FLAG,  # Earlier versions kept this option only.
    },
)

# Returns the settings of the options given now over those of an earlier training, see
# `settings.resolve`.
Resolve = Callable[[Mapping[str, Any] | None], Settings]


@dataclass(frozen=True)
class Plan:
    """A training that is about to begin or to continue.

    Attributes:
        name: name of the model.
        config: options of the model.
        train: options of training.
        data: data folder.
        device: device.
        about: options and data in the checkpoint; None without one.
        start: state in the checkpoint; None without one.
        finished: a run that needs nothing more.
    """

    name: str
    config: Options
    train: TrainConfig
    data: str
    device: torch.device
    about: Mapping[str, Any] | None = None
    start: Snapshot | None = None
    finished: Run | None = None


def refuse_unfinished(hook: Checkpoints) -> None:
    """Raises `RunError` if a new training would cost checkpoints."""
    if name := next(hook.names(), None):
        epoch = int(name.split("-")[1])
        raise RunError(
            f"{hook.folder} has a training that was interrupted in epoch {epoch}: continue with "
            f"--resume, or begin again with --force"
        )


def go_on(
    hook: Checkpoints,
    resolve: Resolve,
    data: str | None,
    device: int | str | torch.device | None,
    explicit: Collection[str] = (),
) -> Plan | None:
    """Returns the plan that continues an earlier training, or finds its run finished.

    It continues from the newest valid checkpoint, else from the start. None if nothing is known of
    an earlier training. The hook takes the earlier training's options for checkpoints.

    Args:
        hook: the run's checkpoints.
        resolve: resolves the options given now over those of the earlier training.
        data: data folder as given; None takes that of the earlier training.
        device: device as given; None takes that of the earlier training.
        explicit: keys of `KEPT` that were given and replace the earlier ones.

    Raises:
        RunError, ConfigError: if options or device differ from those of the earlier training, or
            the checkpoints of an unfinished run are gone.
    """
    found = hook.newest()
    done = _saved_run(hook, found)
    about: Mapping[str, Any] | None = (
        found.about if found else hook.begun() or (done.info if done else None)
    )
    if about is None:
        hook.say(f"there is no checkpoint in {hook.folder}: training starts from the beginning")
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
    place, start = data or locate(about["data"], hook.run), found.snapshot if found else None
    plan = Plan(name, config, train, place, _device(about, device), about, start)
    if done is not None and not done.info["interrupted"] and _same(done.info, plan, about):
        return replace(plan, finished=done)
    if found is None and of_run:
        cause = "was stopped early" if done and done.info["interrupted"] else "is finished"
        raise RunError(
            f"{hook.run} {cause} and has no checkpoints to continue from (see "
            f"--keep-checkpoints): train again with --force"
        )
    hook.say(_whence(hook, found))
    return plan


def _saved_run(hook: Checkpoints, found: Checkpoint | None) -> Run | None:
    """Reads the run folder; None without one, or if it is damaged and a checkpoint replaces it."""
    try:
        return load_run(hook.run) if (hook.run / MARKER).is_file() else None
    except RunError as error:
        if found is None:
            raise
        hook.say(f"{error}: it will be replaced")
        return None


def _whence(hook: Checkpoints, found: Checkpoint | None) -> str:
    """Returns the message about the place from which training continues."""
    if found is None:
        how = "training starts from the beginning, with the same options"
        return f"{hook.folder} has no checkpoint yet: {how}"
    where = found.snapshot.info
    done = f"epoch {where['epoch']}, {where['step']} of its batches done"
    return f"resuming from {found.name}: {done}"


def _check_about(about: Mapping[str, Any], path: Path, *, whole: bool) -> None:
    """Raises `RunError` unless the saved options are valid.

    `whole` is set where `about` is that of a checkpoint, not of a run.json.
    """
    remedy = "begin again with --force"
    if whole:
        schema.check(ABOUT_SCHEMA, about, path, RunError, remedy)
    check_saved(model_class(about["model"]).Config, about["config"], path, RunError, remedy)
    check_saved(TrainConfig, about["train"], path, RunError, remedy)


def _check_width(config: Options, start: Snapshot) -> None:
    """Raises `RunError` for a model wider than its kept parameters, before memory is requested."""
    names = [name for name in start.tensors if name.startswith("model/")]
    widest, width = (
        max((size for name in names for size in start.tensors[name].shape), default=0),
        getattr(config, "width", 0),
    )
    if width > widest:
        raise RunError(
            f"{start.where}: config.width is {width}, but no saved parameter is that wide: begin "
            f"again with --force"
        )


def _same(done: Mapping[str, Any], plan: Plan, about: Mapping[str, Any]) -> bool:
    """Returns whether the plan would end in this finished run."""
    made = (done["model"], {**plan.config.REMOVED, **done["config"]}, done["train"])
    wanted = (plan.name, recorded(plan.config), asdict(plan.train))
    return made == wanted and done["data"]["hash"] == about["data"]["hash"]


def _device(about: Mapping[str, Any], choice: int | str | torch.device | None) -> torch.device:
    """Returns the device of the earlier training, or another of its kind."""
    kind, _, index = about["device"].partition(":")
    if choice is None:
        choice = CPU if kind == "cpu" else int(index or 0)
    device = pick_device(choice)
    if device.type != kind:
        raise ConfigError(
            f"the training was begun on {about['device']}, and random numbers differ on {device}: "
            f"leave the device out"
        )
    return device


def check_data(plan: Plan, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Raises an error unless a training continues on the same data; reports other versions.

    Raises:
        DataError: if the data differ.
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
            f"versions differ from those at the start of training ({', '.join(differ)}): the last "
            f"bits of the result may differ"
        )


def begin(hook: Checkpoints, plan: Plan, dataset: Dataset) -> None:
    """Sets where the hook continues, and writes the options and data of the training."""
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
