"""Configuration: what is unknown, of the wrong type or out of bounds is named; TOML goes out and
comes back.
"""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.core.options import (
    Options,
    build,
    keys,
    option,
    parse_pair,
    read_toml,
    recorded,
    to_toml,
)
from dualgnn_dgl.errors import ConfigError
from dualgnn_dgl.models import MODELS, create, model_class
from dualgnn_dgl.training import TrainConfig


@dataclasses.dataclass(frozen=True)
class Sample(Options):
    width: int = option(64, "embedding width", low=1, high=512)
    rate: float = option(0.5, "a rate", low=0, high=1)
    graph: bool = option(True, "a switch")
    kind: str = option("sum", "a choice", choices=("sum", "max"))
    label: str = option("", "free text")


EVERY = [Sample, TrainConfig, *(model_class(name).Config for name in MODELS)]


def refused(function, *arguments) -> str:
    with pytest.raises(ConfigError) as error:
        function(*arguments)
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__qualname__)
def test_whole_numbers_that_no_tensor_holds_are_refused(kind):
    """Wherever no bound is given; a batch size of 2^63 was a traceback of torch."""
    for field in dataclasses.fields(kind):
        if type(field.default) is int:
            assert f"{field.name} is " in refused(build, kind, {field.name: 2**63})
            assert f"{field.name} is " in refused(build, kind, {field.name: str(-(2**70))})


def test_defaults_and_values():
    assert build(Sample, {}) == Sample()
    assert build(Sample, {"width": "7", "rate": "1e-3", "graph": "no", "kind": "max"}) == Sample(
        7, 1e-3, False, "max"
    )
    assert build(Sample, {"width": 7, "rate": 1, "graph": False}) == Sample(7, 1.0, False)
    assert isinstance(build(Sample, {"rate": 1}).rate, float)
    assert keys(Sample) == ["width", "rate", "graph", "kind", "label"]


@pytest.mark.parametrize("text", ["true", "True", " YES ", "on", "1"])
def test_true(text):
    assert build(Sample, {"graph": text}).graph is True


@pytest.mark.parametrize("text", ["false", "False", "no", "OFF", "0"])
def test_false(text):
    assert build(Sample, {"graph": text}).graph is False


def test_unknown_key_names_the_nearest_and_the_place():
    text = refused(build, Sample, {"widht": 3}, "[model]")
    assert "'widht'" in text and "did you mean 'width'" in text and "[model]" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", "abc"),
        ("width", "1.5"),
        ("width", 1.5),
        ("width", 1.0),
        ("width", True),
        ("width", ""),
        ("width", None),
        ("width", [1]),
        ("rate", "fast"),
        ("rate", True),
        ("rate", {}),
        ("graph", "maybe"),
        ("graph", 1),
        ("kind", 3),
        ("kind", True),
        ("width", "9" * 5000),
    ],
)
def test_wrong_type_names_key_and_value(key, value):
    text = refused(build, Sample, {key: value})
    assert text.startswith(key) and "give" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 0),
        ("width", 513),
        ("width", -3),
        ("rate", -1e-9),
        ("rate", 1.01),
        ("rate", "nan"),
        ("rate", "inf"),
    ],
)
def test_out_of_bounds_names_key_value_and_bound(key, value):
    text = refused(build, Sample, {key: value})
    assert text.startswith(f"{key} is {value}") and "give" in text


def test_bounds_are_inclusive():
    assert build(Sample, {"width": 512, "rate": 1.0}).width == 512
    assert build(Sample, {"width": 1, "rate": 0.0}).rate == 0


def test_unknown_choice_names_the_nearest():
    text = refused(build, Sample, {"kind": "summ"})
    assert "'summ'" in text and "did you mean 'sum'" in text and "kind" in text


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample().width = 3


@pytest.mark.parametrize("kind", EVERY)
def test_every_option_has_help_and_defaults_that_pass(kind):
    for field in dataclasses.fields(kind):
        assert field.metadata["help"], field.name
        assert type(field.default) in (int, float, bool, str), field.name
    assert build(kind, dataclasses.asdict(kind())) == kind()


@pytest.mark.parametrize("kind", EVERY)
def test_toml_round_trip_of_every_configuration(kind):
    text = to_toml(kind(), "section")
    assert build(kind, tomllib.loads(text)["section"]) == kind()
    assert all(field.metadata["help"] in text for field in dataclasses.fields(kind))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(1, 512),
    st.floats(0, 1, allow_nan=False),
    st.booleans(),
    st.sampled_from(["sum", "max"]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
)
def test_toml_round_trip_of_any_value(width, rate, graph, kind, label):
    value = Sample(width, rate, graph, kind, label)
    assert build(Sample, tomllib.loads(to_toml(value))) == value


@pytest.mark.parametrize(
    ("text", "pair"), [("a=1", ("a", "1")), (" a =b=c", ("a", "b=c")), ("a=", ("a", ""))]
)
def test_pairs(text, pair):
    assert parse_pair(text) == pair


@pytest.mark.parametrize("text", ["", "width", "=3", "  =3"])
def test_pairs_that_are_none(text):
    assert "key=value" in refused(parse_pair, text)


@pytest.mark.parametrize(
    "content",
    [
        b"a = ",
        b"a = 1\na = 2",
        b"[model\n",
        b"\xff\xfe",
        b"a = [" * 3000,
        b"\0",
        b"a = 'x",
        b"lr = 1e-\n\n",
        b"= 3",
    ],
)
def test_bad_toml_is_one_line_with_the_file(tmp_path, content):
    (tmp_path / "run.toml").write_bytes(content)
    assert "run.toml" in refused(read_toml, tmp_path / "run.toml")


def test_missing_toml_and_folder(tmp_path):
    assert "does not exist" in refused(read_toml, tmp_path / "none.toml")
    assert "is a folder" in refused(read_toml, tmp_path)


@pytest.mark.parametrize(
    "metric",
    ["recall", "recall@", "recall@0", "recall@-1", "recal@20", "recall@x", "@20", "recall@1.5"],
)
def test_metric_must_be_a_name_and_a_length(metric):
    assert f"'{metric}'" in refused(build, TrainConfig, {"metric": metric})


@pytest.mark.parametrize(
    "metric", ["recall@²", "recall@ 5", "hit@" + "9" * 40, "hit@" + "9" * 5000]
)
def test_metric_lengths_that_look_like_numbers(metric):
    assert "metric" in refused(build, TrainConfig, {"metric": metric})


@pytest.mark.parametrize(
    "metric", ["recall@20", "ndcg@1", "precision@7", "hit@3", "map@10", "mrr@5"]
)
def test_metrics_that_exist(metric):
    assert build(TrainConfig, {"metric": metric}).metric == metric


@pytest.mark.parametrize("key", ["epochs", "batch_size", "patience", "eval_every"])
def test_counts_start_at_one(key):
    assert "at least 1" in refused(build, TrainConfig, {key: 0})


def test_seed_that_no_generator_takes_is_refused_in_one_line():
    import torch

    for seed in (0, 2**31, 2**53, 2**63 - 1):
        torch.Generator().manual_seed(build(TrainConfig, {"seed": seed}).seed)
    assert "seed" in refused(build, TrainConfig, {"seed": 10**30})
    assert "seed" in refused(build, TrainConfig, {"seed": -1})


def test_unknown_model_names_the_nearest():
    assert "did you mean 'lightgcn'" in refused(model_class, "lightgnc")
    assert "did you mean 'dualgnn'" in refused(create, "dual-gnn", None, {})


# ---------------------------------------------------------------- options of earlier versions


@dataclasses.dataclass(frozen=True)
class Later(Options):
    REMOVED = {"share": 0.5, "extra": False}
    width: int = option(64, "embedding width")
    kind: str = option("sum", "a choice", choices=("sum", "max"), removed=("product",))


def test_a_removed_option_is_ignored_at_its_old_default():
    assert build(Later, {"width": 7, "share": 0.5, "extra": False}, typed=True) == Later(width=7)
    assert build(Later, {"share": "5e-1", "extra": "no"}) == Later()
    assert recorded(Later(width=7)) == {"share": 0.5, "extra": False, "width": 7, "kind": "sum"}
    assert keys(Later) == ["width", "kind"] and "extra" not in to_toml(Later())


def test_another_value_of_a_removed_option_is_one_line_that_says_so():
    said = refused(build, Later, {"extra": True})
    assert said == "extra=true was removed (it is always false now): leave the option out"
    assert "share=0.7 was removed" in refused(build, Later, {"share": "0.7"})
    assert "give a number" in refused(build, Later, {"share": "much"})
    assert refused(build, Later, {"kind": "product"}) == (
        "kind=product was removed: choose one of sum, max"
    )
    assert "unknown key" in refused(build, Later, {"extraa": True})


@pytest.mark.parametrize("name", list(MODELS))
def test_removed_options_name_no_present_one(name):
    kind = model_class(name).Config
    assert not set(kind.REMOVED) & {*keys(kind), *keys(TrainConfig)}
    assert build(kind, kind.REMOVED, typed=True) == kind()
