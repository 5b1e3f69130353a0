"""`dualgnn eval` and `dualgnn recommend` as a person meets them: what they print, write and
refuse.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import forged
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import call
from small import LONELY_USER, USERS, dataset, pairs_of

from dualgnn_dgl import data
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.core.devices import pick_device
from dualgnn_dgl.core.ids import nearest
from dualgnn_dgl.errors import ConfigError, clean
from dualgnn_dgl.evaluation import METRICS, Evaluator, top_k
from dualgnn_dgl.models import model_class
from dualgnn_dgl.runs import checkpoint
from dualgnn_dgl.training import Fit, TrainConfig
from dualgnn_dgl.verbs.parquet import write_lists

ITEMS = 23  # more than the default list lengths, 10 and 20
TITLES = [f"Video {i}" for i in range(ITEMS)]
TITLES[2], TITLES[4], TITLES[7] = "\x1b[31mred\x07 alert\x1b[0m\r\nnext", "猫のダンス 🐈", "x" * 300


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, data.Dataset, Fit]:
    """A folder with the prepared data `data`, a run `runs/dualgnn` on it, and other data that the
    run does not know.
    """
    folder = tmp_path_factory.mktemp("eval")
    prepared = replace(dataset(items=ITEMS), titles=np.array(TITLES))
    data.save(prepared, folder / "data")
    data.save(dataset(items=ITEMS, seed=1), folder / "other")
    draw = np.random.default_rng(7)
    user, item = (
        torch.tensor(draw.normal(size=(count, 4)), dtype=torch.float32) for count in (USERS, ITEMS)
    )
    fit = Fit(user, item, {})
    for name, tables in (("dualgnn", fit), ("broken", Fit(user * math.nan, item, {}))):
        checkpoint.save_run(
            folder / "runs" / name,
            tables,
            model="bprmf",
            config=model_class("bprmf").Config(),
            train=TrainConfig(),
            data_path="data",
            dataset=prepared,
            device="cpu",
        )
    return folder, prepared, fit


@pytest.fixture
def folder(made, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made[0])
    return made[0]


def refused(*words: str | Path) -> str:
    """The one line with which a command refuses; exit status 1, nothing on stdout."""
    found = call(*words)
    assert found.exit_code == 1 and found.stdout == "", found.output
    (line,) = found.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


# -------------------- eval


def test_json_has_exactly_the_promised_form(folder, made) -> None:
    _, prepared, fit = made
    found = call("eval", "--json")
    assert found.exit_code == 0, found.output
    value = json.loads(found.stdout)
    expected = Evaluator(prepared.test, [prepared.train, prepared.valid], ks=(10, 20))(
        fit.user, fit.item
    )
    names = [f"{name}@{k}" for k in (10, 20) for name in METRICS]
    assert list(value) == ["run", "data", "split", "mask", "users", "metrics", "intervals"]
    assert [value[key] for key in ("run", "data", "split", "mask", "users")] == [
        "runs/dualgnn",
        "data",
        "test",
        "all",
        USERS - 2,
    ]
    assert value["metrics"] == expected.means | expected.coverage
    assert list(value["metrics"])[: len(METRICS) + 2] == [
        *(f"{name}@10" for name in METRICS),
        "coverage@10",
        "recall@20",
    ]
    assert list(value["intervals"]) == names
    assert all(
        low <= value["metrics"][name] <= high for name, (low, high) in value["intervals"].items()
    )


@pytest.mark.parametrize(
    ("split", "mask", "masked"),
    [
        ("test", "all", ("train", "valid")),
        ("test", "train", ("train",)),
        ("valid", "all", ("train",)),
    ],
)
def test_split_and_mask(folder, made, split, mask, masked) -> None:
    _, prepared, fit = made
    value = json.loads(
        call(
            "eval", "--json", "--topk", 3, "--split", split, "--mask", mask, "--bootstrap", 0
        ).stdout
    )
    expected = Evaluator(
        getattr(prepared, split), [getattr(prepared, name) for name in masked], ks=(3,)
    )(fit.user, fit.item)
    assert value["metrics"] == expected.means | expected.coverage and value["intervals"] == {}
    assert (value["split"], value["mask"]) == (split, mask)


def test_text_names_what_was_measured(folder, made) -> None:
    found = call("eval", "--topk", 3, "--topk", 10, "--topk", 3)
    value = json.loads(call("eval", "--topk", 3, "--topk", 10, "--json").stdout)
    assert found.stderr == ""
    head, table = found.stdout.split("\n\n")
    assert re.findall(r"^(\w+) +(\S+)", head, re.M) == [
        ("run", "runs/dualgnn"), ("data", "data"), ("split", "test"), ("mask", "all"), ("users", str(value["users"])),
    ]  # fmt: skip
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["metric", "@3", "@10"] and [row[0] for row in rows[1:]] == [
        *METRICS,
        "coverage",
    ]
    low, high = value["intervals"]["recall@3"]
    assert rows[1][1:4] == [f"{value['metrics']['recall@3']:.4f}", f"[{low:.4f},", f"{high:.4f}]"]
    assert f"{value['metrics']['coverage@10']:.4f}" == rows[-1][-1]


def test_per_user_file(folder, made, tmp_path) -> None:
    _, prepared, fit = made
    file = tmp_path / "new" / "users.parquet"
    found = call("eval", "--topk", 4, "--per-user", file)
    assert found.exit_code == 0 and f"written to {file}" in found.stderr
    table = pq.read_table(file)
    expected = Evaluator(prepared.test, [prepared.train, prepared.valid], ks=(4,))(
        fit.user, fit.item
    )
    assert table.column_names == ["user", *(f"{name}@4" for name in METRICS)]
    assert table["user"].to_pylist() == prepared.user_ids[expected.users].tolist()
    for name, values in expected.per_user.items():
        assert table[name].to_pylist() == values.tolist()
    assert "--force" in refused("eval", "--topk", 4, "--per-user", file)
    assert call("eval", "--topk", 5, "--per-user", file, "--force").exit_code == 0
    assert pq.read_table(file).column_names[1] == "recall@5"
    assert [path.name for path in file.parent.iterdir()] == ["users.parquet"]


def test_seed_decides_the_intervals(folder) -> None:
    one, same, other = (
        json.loads(call("eval", "--json", "--seed", seed).stdout)["intervals"] for seed in (5, 5, 6)
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--topk", "0"], "lists of length 0"),
        (["--topk", "-3"], "lists of length -3"),
        (["--run", "nowhere"], "nowhere/run.json does not exist: run 'dualgnn train' first"),
        (["--run", "data"], "data/run.json does not exist"),
        (["--run", "runs/broken"], "user table holds NaN or infinity in row 0"),
        (["--data", "nowhere"], "nowhere/dataset.json does not exist"),
        (["--data", "other"], "the run runs/dualgnn was trained on other data"),
        (["--per-user", "users.csv"], "'users.csv': name a file that ends in .parquet"),
        (["--per-user", ""], "name a file that ends in .parquet"),
        (["--per-user", "data/test.parquet"], "data/test.parquet belongs to the result in"),
    ],
)
def test_eval_refuses_in_one_line(folder, words, line) -> None:
    assert line in refused("eval", *words)


def test_an_empty_split_has_nothing_to_evaluate(folder, made, tmp_path) -> None:
    _, prepared, fit = made
    nobody = data.Interactions(np.array([], dtype=int), np.array([], dtype=int), USERS, ITEMS)
    bare = replace(prepared, valid=nobody)
    data.save(bare, tmp_path / "data")
    options = {
        "model": "bprmf",
        "config": model_class("bprmf").Config(),
        "train": TrainConfig(),
        "device": "cpu",
    }
    checkpoint.save_run(tmp_path / "run", fit, data_path=tmp_path / "data", dataset=bare, **options)
    assert "no user has a held-out item" in refused(
        "eval", "--run", tmp_path / "run", "--split", "valid"
    )
    assert call("eval", "--run", tmp_path / "run").exit_code == 0


# -------------------- recommend


def watched(prepared: data.Dataset, user: int) -> set[str]:
    pairs = pairs_of(prepared.train) + pairs_of(prepared.valid)
    return {str(prepared.item_ids[i]) for u, i in pairs if u == user}


def test_a_list_in_the_users_own_ids(folder, made) -> None:
    _, prepared, fit = made
    one, two = (str(prepared.user_ids[u]) for u in (3, 8))
    value = json.loads(
        call("recommend", "--user", one, "--user", two, "--user", one, "--k", 6, "--json").stdout
    )
    assert [entry["user"] for entry in value["users"]] == [one, two]
    assert {key: value[key] for key in ("run", "data", "k")} == {
        "run": "runs/dualgnn",
        "data": "data",
        "k": 6,
    }
    for number, entry in zip((3, 8), value["users"], strict=True):
        hidden = watched(prepared, number)
        scores = (fit.user[number] @ fit.item.T).tolist()
        best = sorted(
            (i for i in range(ITEMS) if prepared.item_ids[i] not in hidden),
            key=lambda i: -scores[i],
        )[:6]
        assert [row["item"] for row in entry["items"]] == prepared.item_ids[best].tolist()
        assert [row["title"] for row in entry["items"]] == [TITLES[i] for i in best]
        assert [row["rank"] for row in entry["items"]] == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(
            [row["score"] for row in entry["items"]], np.array(scores)[best], rtol=1e-5
        )


def test_text_list_is_aligned_and_harmless(folder, made) -> None:
    _, prepared, _ = made
    user = str(prepared.user_ids[LONELY_USER])
    found = call("recommend", "--user", user, "--k", ITEMS)
    lines = found.stdout.splitlines()
    assert (
        lines[0] == f"user {user}"
        and lines[1].split() == ["rank", "item", "score", "title"]
        and len(lines) == 2 + ITEMS
    )
    place = lines[1].index("title")
    shown = {line.split()[1]: line[place:] for line in lines[2:]}
    assert shown[prepared.item_ids[2]] == "red alert next"
    assert shown[prepared.item_ids[4]] == "猫のダンス 🐈"
    assert shown[prepared.item_ids[7]] == "x" * 99 + "…"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", found.stdout)


def test_seen_items_are_left_out_unless_asked_for(folder, made) -> None:
    _, prepared, _ = made
    user, hidden = str(prepared.user_ids[0]), watched(prepared, 0)
    found = call("recommend", "--user", user, "--k", ITEMS, "--json")
    items = [row["item"] for row in json.loads(found.stdout)["users"][0]["items"]]
    assert set(items) == set(prepared.item_ids.tolist()) - hidden and len(items) == ITEMS - len(
        hidden
    )
    assert (
        f"all but {len(items)} of {ITEMS} micro-videos"
        in call("recommend", "--user", user, "--k", ITEMS).stderr
    )
    every = json.loads(
        call("recommend", "--user", user, "--k", ITEMS, "--json", "--include-seen").stdout
    )
    assert {row["item"] for row in every["users"][0]["items"]} == set(prepared.item_ids.tolist())


def test_lists_of_all_users(folder, made, tmp_path, monkeypatch) -> None:
    _, prepared, fit = made
    file = tmp_path / "lists.parquet"
    value = json.loads(call("recommend", "--all", file, "--k", 17, "--json").stdout)
    items, scores = (
        x.numpy()
        for x in top_k(fit.user, fit.item, 17, prepared.train.csr() + prepared.valid.csr())
    )
    expected = [
        {
            "user": str(prepared.user_ids[u]),
            "rank": j + 1,
            "item": str(prepared.item_ids[items[u, j]]),
            "score": float(scores[u, j]),
        }
        for u in range(USERS)
        for j in range(17)
        if items[u, j] >= 0
    ]
    assert len(expected) < USERS * 17  # some users have fewer than 17 items left
    assert pq.read_table(file).to_pylist() == expected
    assert (value["users"], value["rows"]) == (USERS, len(expected))
    assert "--force" in refused("recommend", "--all", file)

    seen = prepared.train.csr() + prepared.valid.csr()
    ids = prepared.user_ids, prepared.item_ids
    assert write_lists(tmp_path / "b.parquet", (fit.user, fit.item), 17, seen, *ids, step=4) == len(
        expected
    )
    assert pq.read_table(tmp_path / "b.parquet").to_pylist() == expected


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--user", "u90"], "unknown user 'u90' in data; did you mean 'u900'"),
        (
            ["--user", "nobody at all"],
            "unknown user 'nobody at all' in data; ids there look like 'u900'",
        ),
        (["--user", "\x1b[2Ju\n"], "unknown user 'u ' in data"),
        (["--user", ""], "unknown user ''"),
        (["--user", " u900"], "unknown user ' u900' in data; did you mean 'u900'"),
        (["--user", "u900", "--k", "0"], "lists of length 0"),
        (["--user", "u900", "--data", "other"], "trained on other data"),
        (["--user", "u900", "--run", "nowhere"], "nowhere/run.json"),
        (["--all", "lists.csv"], "name a file that ends in .parquet"),
        (["--all", "data"], "name a file that ends in .parquet"),
    ],
)
def test_recommend_refuses_in_one_line(folder, words, line) -> None:
    assert line in refused("recommend", *words)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ('{"rows": {"dropped": {"same pair twice": 3, "5-core": 7}}}', True),
        ('{"rows": {"dropped": {"same pair twice": 3}}}', False),
        ('{"rows": {"dropped": ["5-core"]}}', False),
        ('{"rows": ', False),
    ],
)
def test_an_unknown_user_may_have_been_left_out_by_the_core(folder, report, said) -> None:
    file, manifest = folder / "data" / "report.json", folder / "data" / "dataset.json"
    before, content = manifest.read_bytes(), json.loads(manifest.read_text())
    try:
        file.write_text(report)
        unlisted = refused("recommend", "--user", "u90")
        content["files"]["report.json"] = ""
        forged.rewrite(manifest, content)
        line = refused("recommend", "--user", "u90")
    finally:
        file.unlink()
        manifest.write_bytes(before)
    assert "5-core" not in unlisted, "a report that preprocess did not write says nothing"
    assert line.count("unknown user 'u90' in data; did you mean 'u900'") == 1
    assert ("left out users outside the 5-core" in line and "--history" in line) == said


@pytest.mark.parametrize("words", [[], ["--user", "u900", "--all", "lists.parquet"]])
def test_recommend_needs_users_or_a_file(folder, words) -> None:
    found = call("recommend", *words)
    assert found.exit_code == 2 and "--user ID" in found.stderr and "--all FILE" in found.stderr
    assert not (folder / "lists.parquet").exists()


def test_nothing_is_left_behind_when_writing_fails(folder, tmp_path, monkeypatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    assert "No space left on device: free some space" in refused(
        "recommend", "--all", tmp_path / "lists.parquet"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "typo", ["user-02463", "ser-002463", "user-0024633", "usr_002463", "USER-002463", "user 2463"]
)
def test_nearest_ids_are_as_near_as_difflib_finds_among_all(typo) -> None:
    ids = np.array([f"user-{n:06}" for n in range(0, 6_000, 3)])

    def nearness(found: list[str]) -> list[float]:
        return [difflib.SequenceMatcher(None, other, typo).ratio() for other in found]

    found = nearest(ids, typo)
    assert (
        nearness(found) == nearness(difflib.get_close_matches(typo, ids.tolist(), n=3, cutoff=0.5))
        and len(found) == 3
    )


def test_nearest_of_nothing() -> None:
    assert (
        nearest(np.array([], dtype=str), "a")
        == nearest(np.array(["a"]), "")
        == nearest(np.array(["a"]), "xyz")
        == []
    )


def test_clean_keeps_letters_and_emoji() -> None:
    assert clean("Ünï—漢字 👩‍🚀\u2028\u202eabc\x9b31m") == "Ünï—漢字 👩‍🚀 abc"


# -------------------- shared


def test_pick_device(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None) == pick_device(-1) == torch.device("cpu")
    with pytest.raises(ConfigError) as error:
        pick_device(0)
    assert str(error.value) == (
        "there is no CUDA device 0 on this machine: leave the device out to take what there is, "
        "or choose -1 for the CPU"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device(None) == torch.device("cuda", 0) and pick_device(1) == torch.device(
        "cuda", 1
    )
    assert pick_device(-1) == torch.device("cpu")
    assert pick_device("cuda:1") == pick_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")
    for wrong in (2, -2, "cuda:2", "gpu", "mps"):
        with pytest.raises(ConfigError, match=str(wrong).removeprefix("cuda:")):
            pick_device(wrong)


@pytest.mark.parametrize("verb", ["eval", "recommend"])
def test_help_explains_every_option_without_torch(verb) -> None:
    code = (
        "import sys; from dualgnn_dgl.cli.main import group; "
        f"group([{verb!r}, '--help'], standalone_mode=False); "
        "assert not {'torch', 'dgl', 'pandas', 'pyarrow'} & set(sys.modules), 'heavy imports'"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "Example" in found.stdout
    command = group.get_command(click.Context(group), verb)
    assert all(option.help for option in command.params) and command.help


# -------------------- catalogues smaller than a list


def test_lists_longer_than_the_catalogue_are_cut_and_said_to_be(folder) -> None:
    """As `train` cuts its metric; the last length ranks every video."""
    done = call("eval", "--topk", "5", "--topk", "24", "--topk", "99", "--json")
    value = json.loads(done.stdout)
    assert value["ks"] == [5, 23] if "ks" in value else True
    assert {name.partition("@")[2] for name in value["metrics"]} == {"5", "23"}
    assert "only 23 videos to rank: lists of 99 are cut to 23" in done.stderr
    assert "cut" not in call("eval", "--topk", "5").stderr
    done = call("recommend", "--user", "u900", "--k", "99", "--include-seen", "--json")
    value = json.loads(done.stdout)
    assert value["k"] == 23 and len(value["users"][0]["items"]) == 23
    assert "only 23 micro-videos to rank" in done.stderr
