"""What `dualgnn train` sets out to do: begin, go on with what was cut off, or nothing since the run is finished."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualgnn_dgl import schema
from dualgnn_dgl.cli.device import pick_device
from dualgnn_dgl.cli.show import note
from dualgnn_dgl.models import MODELS

if TYPE_CHECKING:
    import torch

    from dualgnn_dgl.checkpoint.working import Checkpoints
    from dualgnn_dgl.data import Dataset
    from dualgnn_dgl.options import Options
    from dualgnn_dgl.state import Snapshot
    from dualgnn_dgl.training import TrainConfig

_WITH_WHAT = "--resume goes on with the options it was begun with ({}): leave them out, or begin anew with --force"
# the command line's name of what is remembered of how checkpoints are kept → its name in `Checkpoints`
KEPT = {"checkpoint_every": "every", "checkpoint_minutes": "minutes", "keep_last": "last", "keep_checkpoints": "leave"}
RAISED = ("epochs", "patience")  # what a training may be given more of when it goes on

# What a checkpoint says of the training's options and data; `prepare` writes it.
ABOUT_SCHEMA = schema.record(
    {
        "model": schema.one_of(*MODELS),
        "config": schema.SETTINGS,
        "train": schema.SETTINGS,
        "data": schema.record({"path": schema.TEXT, "hash": schema.HEX64}, {"from_run": schema.TEXT}),
        "device": schema.DEVICE,
        "versions": schema.VERSIONS,
    },
    {
        "keep": schema.record(
            {"every": schema.whole(1), "minutes": schema.number(0), "last": schema.whole(1), "leave": schema.FLAG}
        ),
        "leave": schema.FLAG,  # of versions that kept nothing else
    },
)

# (name, model configuration, training configuration) out of the options given now over those of an earlier training
Resolve = Callable[[Mapping[str, Any] | None], "tuple[str, Options, TrainConfig]"]


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
    finished: Mapping[str, Any] | None = None  # run.json of a run that needs nothing more


def refuse_unfinished(keeper: Checkpoints) -> None:
    """Raise `RunError` if beginning anew would cost checkpoints."""
    from dualgnn_dgl.errors import RunError

    if name := next(keeper.names(), None):
        epoch = int(name.split("-")[1])
        raise RunError(
            f"{keeper.folder} holds a training that was cut off in epoch {epoch}: go on with --resume, or begin anew with --force"
        )


def go_on(
    keeper: Checkpoints, resolve: Resolve, data: str | None, gpu: int | None, explicit: Collection[str] = ()
) -> Plan | None:
    """The plan that continues from the newest valid checkpoint or from the start, or that finds the run finished.

    None if nothing is known of an earlier training. The keeper takes the training's own way of keeping checkpoints.

    Parameters
    ----------
    data, gpu : as given on the command line; None takes what the training was begun with.
    explicit : names of the options given on the command line; those about checkpoints replace the training's own.

    Raises
    ------
    RunError, ConfigError
        if options or device are others than those it was begun with, or the checkpoints of an unfinished run are gone.
    """
    from dualgnn_dgl.checkpoint import MARKER, load_run, locate
    from dualgnn_dgl.checkpoint.working import BEGUN
    from dualgnn_dgl.errors import RunError

    found = keeper.newest()
    done = None
    try:
        if (keeper.run / MARKER).is_file():
            done = load_run(keeper.run).info
    except RunError as error:
        if found is None:
            raise
        note(f"{error}: it will be replaced")
    about: Mapping[str, Any] | None = found.about if found else keeper.begun() or done
    if about is None:
        note(f"there is no checkpoint in {keeper.folder}: training begins at the beginning")
        return None
    written = keeper.folder / (f"{found.name}.json" if found else BEGUN)
    _check_about(about, keeper.run / MARKER if about is done else written, whole=about is not done)
    for name, attribute in KEPT.items():
        if name not in explicit and attribute in about.get("keep", {}):
            setattr(keeper, attribute, about["keep"][attribute])
    name, config, train = resolve(about)
    if found is not None:
        _check_width(config, found.snapshot)
    data = data or locate(about["data"], keeper.run)
    plan = Plan(name, config, train, data, _device(about, gpu), about, found.snapshot if found else None)
    if done is not None and not done["interrupted"] and _same(done, plan, about):
        return replace(plan, finished=done)
    if found is None and about is not done:
        note(f"{keeper.folder} holds no checkpoint yet: training starts from the beginning, with the options it was begun with")
        return plan
    if found is None:
        cause = "was stopped early" if done and done["interrupted"] else "is finished"
        raise RunError(
            f"{keeper.run} {cause} and has no checkpoints to go on from (see --keep-checkpoints): train anew with --force"
        )
    where = found.snapshot.info
    note(f"going on from {found.name}: epoch {where['epoch']}, {where['step']} batches of it done")
    return plan


def _check_about(about: Mapping[str, Any], path: Path, *, whole: bool) -> None:
    """Raises `RunError` unless the saved options are valid; `whole` where `about` is that of a checkpoint, not a run.json."""
    from dualgnn_dgl.errors import RunError
    from dualgnn_dgl.models import model_class
    from dualgnn_dgl.options import check_saved
    from dualgnn_dgl.training import TrainConfig

    remedy = "begin again with --force"
    if whole:
        schema.check(ABOUT_SCHEMA, about, path, RunError, remedy)
    check_saved(model_class(about["model"]).Config, about["config"], path, RunError, remedy)
    check_saved(TrainConfig, about["train"], path, RunError, remedy)


def _check_width(config: Options, start: Snapshot) -> None:
    """Raises `RunError` for a model that is wider than what is kept of it, before memory is taken for it."""
    from dualgnn_dgl.errors import RunError

    names = [name for name in start.tensors if name.startswith("model/")]
    widest, width = max((size for name in names for size in start.tensors[name].shape), default=0), getattr(config, "width", 0)
    if width > widest:
        raise RunError(f"{start.where}: config.width is {width}, no kept parameter is that wide: begin again with --force")


def _same(done: Mapping[str, Any], plan: Plan, about: Mapping[str, Any]) -> bool:
    """Whether a finished run is the one that the plan would end in."""
    made = (done["model"], done["config"], done["train"], done["data"]["hash"])
    return made == (plan.name, asdict(plan.config), asdict(plan.train), about["data"]["hash"])  # type: ignore[call-overload]


def _device(about: Mapping[str, Any], gpu: int | None) -> torch.device:
    """The device it was begun on, or another of its kind."""
    from dualgnn_dgl.errors import ConfigError

    kind, _, index = about["device"].partition(":")
    if gpu is None:
        gpu = -1 if kind == "cpu" else int(index or 0)
    device = pick_device(gpu)
    if device.type != kind:
        raise ConfigError(
            f"the training was begun on {about['device']}, not on {device}: their random numbers differ; leave --gpu out"
        )
    return device


def refuse_other_model(about: Mapping[str, Any], name: str) -> None:
    """Raise `ConfigError` for another model than that of the training that goes on."""
    from dualgnn_dgl.errors import ConfigError

    if name != about["model"]:
        raise ConfigError(_WITH_WHAT.format(f"the model was {about['model']}, now {name}"))


def refuse_differences(about: Mapping[str, Any], config: Options, train: TrainConfig) -> None:
    """Raise `ConfigError` naming what differs from the options that the training was begun with.

    More `epochs` and more `patience` are allowed.
    """
    from dualgnn_dgl.errors import ConfigError

    differ = []
    for before, now in ((about["config"], config), (about["train"], train)):
        for key, value in asdict(now).items():  # type: ignore[call-overload]
            more = key in RAISED and value > before.get(key, value)
            if value != before.get(key, value) and not more:
                differ.append(f"{key} was {before[key]}, now {value}")
    if differ:
        raise ConfigError(_WITH_WHAT.format("; ".join(differ)))


def check_data(plan: Plan, dataset: Dataset) -> None:
    """Check that a training continues on the data it was begun with, and say so where versions differ.

    Raises
    ------
    DataError
        if the data are others.
    """
    from dualgnn_dgl.errors import DataError

    if plan.about is None:
        return
    before = plan.about["data"]["hash"]
    if before != dataset.hash:
        raise DataError(
            f"the training was begun on other data (hash {before[:12]}…, {plan.data} has {dataset.hash[:12]}…): "
            "point --data to the folder it was begun on, or begin again with --force"
        )
    then = plan.about["versions"]
    differ = [f"{key} {then.get(key)} → {value}" for key, value in _versions().items() if then.get(key) != value]
    if differ and plan.start is not None:
        note(f"other versions than it was begun with ({', '.join(differ)}): the last bits of the result may differ")


def begin(keeper: Checkpoints, plan: Plan, dataset: Dataset) -> None:
    """Tell the keeper where to continue, and have it write down what the training is begun with."""
    from dualgnn_dgl.checkpoint import reference

    keeper.start = plan.start
    about = {
        "model": plan.name,
        "config": asdict(plan.config),  # type: ignore[call-overload]
        "train": asdict(plan.train),
        "data": reference(Path(plan.data), keeper.run) | {"hash": dataset.hash},
        "device": str(plan.device),
        "versions": _versions(),
        "keep": {attribute: getattr(keeper, attribute) for attribute in KEPT.values()},
    }
    keeper.begin(about)


def _versions() -> dict[str, str]:
    import torch

    from dualgnn_dgl.checkpoint import versions

    return {**versions(), "threads": str(torch.get_num_threads())}
