"""The map that `preprocess --feature-dim` fits.

Kept with the data, checked, and used for videos that come later.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import forged
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from commands import call
from sklearn.decomposition import PCA

from dualgnn_dgl import data, modality
from dualgnn_dgl.cli.main import group
from dualgnn_dgl.data import MANIFEST, Dataset, Modality
from dualgnn_dgl.data.projection import FeatureProjection, narrow
from dualgnn_dgl.data.raw import RawInput, RawLog, RawModality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.preprocess import Options, prepare
from dualgnn_dgl.readers.new_items import read_new_items
from dualgnn_dgl.runs import growth, newcomers

USERS, ITEMS, RAW, WIDTH = 17, 29, 11, 3
HOLE = 4
FILES = ("modality.visual.mean.npy", "modality.visual.components.npy")


def raw_visual(seed: int = 3) -> np.ndarray:
    """(ITEMS, RAW) float32, far from zero on average; one row is missing."""
    draw = np.random.default_rng(seed)
    values = (draw.normal(size=(ITEMS, 5)) @ draw.normal(size=(5, RAW)) + 4).astype(np.float32)
    values[HOLE] = np.nan
    return values


def raw_input(visual: np.ndarray) -> RawInput:
    """A log in which every user watches ten videos.

    Features reduced and, `sound`, too narrow to be.
    """
    draw = np.random.default_rng(0)
    item = np.concatenate([draw.permutation(ITEMS)[:10] for _ in range(USERS)])
    user = np.repeat(np.arange(USERS), 10)
    ids = np.array([f"v{i:02}" for i in range(ITEMS)])
    log = RawLog(user, item, np.array([f"u{u:02}" for u in range(USERS)]), ids, rows_read=len(user))
    sound = RawModality(ids, draw.normal(size=(ITEMS, 2)).astype(np.float32), np.ones(ITEMS, bool))
    return RawInput(
        log, {"visual": RawModality(ids, visual, ~np.isnan(visual).any(1)), "sound": sound}
    )


def made(visual: np.ndarray | None = None, **options: object) -> Dataset:
    visual = raw_visual() if visual is None else visual
    return prepare(raw_input(visual), Options(k_core=0, feature_dim=WIDTH, **options)).dataset  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return made()


# ---------------------------------------------------------------- the map


def test_the_map_is_that_of_the_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    values, present = raw_visual(), np.arange(ITEMS) != HOLE
    pca = PCA(n_components=WIDTH, random_state=0).fit(values[present])
    reduction = FeatureProjection(pca.mean_, pca.components_)
    reduced = reduction.apply(values, present)
    assert reduced.dtype == np.float32 and not reduced[HOLE].any()
    np.testing.assert_allclose(reduced[present], pca.transform(values[present]), atol=1e-5)
    monkeypatch.setattr("dualgnn_dgl.data.projection.BLOCK", 7)
    np.testing.assert_allclose(reduction.apply(values, present), reduced, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "components", "words"),
    [
        (np.ones(4), np.ones((2, 5)), r"\(4,\) and \(2, 5\)"),
        (np.ones((1, 4)), np.ones((2, 4)), r"\(1, 4\)"),
        (np.ones(4), np.ones((4, 4)), "N < F"),
        (np.ones(4), np.ones((0, 4)), "N < F"),
        (np.ones(4), np.array([[np.nan, 0, 0, 0]]), "NaN or infinity"),
        (np.array([1e300, 0, 0, 0]), np.ones((1, 4)), "NaN or infinity"),
        (np.array(["a"] * 4), np.ones((1, 4)), "give real numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_is_no_map_is_refused(mean: np.ndarray, components: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        FeatureProjection(mean, components)


def test_either_width_is_taken_and_no_other(dataset: Dataset) -> None:
    """Rows of the original data, raw, come out as preprocess made them."""
    kept, visual = dataset.projections["visual"], dataset.modalities["visual"]
    assert set(dataset.projections) == {"visual"}, "sound was narrow enough"
    given = (visual.present, WIDTH, kept)
    np.testing.assert_allclose(
        narrow("file", "visual", raw_visual(), *given), visual.values, atol=1e-5
    )
    one = narrow("file", "visual", raw_visual()[7:8], np.ones(1, bool), WIDTH, kept)
    np.testing.assert_allclose(one[0], visual.values[7], atol=1e-5)
    assert np.array_equal(narrow("file", "visual", visual.values, *given), visual.values)
    with pytest.raises(
        DataError,
        match="file has 7 columns, visual of the catalogue has 3, reduced from 11: give 11",
    ):
        narrow("file", "visual", np.ones((ITEMS, 7)), *given)
    with pytest.raises(
        DataError, match="file has 11 columns, visual of the catalogue has 3.*did not keep the map"
    ):
        narrow("file", "visual", raw_visual(), visual.present, WIDTH, None)


def test_videos_held_out_whole_have_no_say_in_the_map() -> None:
    visual = raw_visual()
    one = made(visual, split="cold-items")
    watched = np.bincount(one.train.item, minlength=ITEMS) > 0
    assert 0 < (~watched).sum() < ITEMS / 2
    visual[~watched] *= -50
    other = made(visual, split="cold-items")
    assert one.projections["visual"].hash == other.projections["visual"].hash
    mine, theirs = one.modalities["visual"], other.modalities["visual"]
    np.testing.assert_allclose(mine.values[watched], theirs.values[watched], atol=1e-5)
    assert not np.allclose(mine.values[~watched], theirs.values[~watched])
    visual[np.flatnonzero(watched)[-1]] *= -50
    assert (
        made(visual, split="cold-items").projections["visual"].hash
        != one.projections["visual"].hash
    )


def test_a_modality_that_no_trained_video_has_is_left_as_it_is() -> None:
    visual = raw_visual()
    watched = np.bincount(made(split="cold-items").train.item, minlength=ITEMS) > 0
    visual[watched] = np.nan
    found = made(visual, split="cold-items")
    assert found.modalities["visual"].width == RAW and not found.projections


# ---------------------------------------------------------------- kept with the data


def test_the_hash_is_that_of_what_a_model_sees(dataset: Dataset) -> None:
    assert dataclasses.replace(dataset, projections={}).hash == dataset.hash == made().hash
    changed = FeatureProjection(
        dataset.projections["visual"].mean + 1, dataset.projections["visual"].components
    )
    assert changed.hash != dataset.projections["visual"].hash


def test_a_map_stays_with_its_modality(dataset: Dataset) -> None:
    kept = dataset.projections["visual"]
    assert modality.drop(dataset, 0.3).projections["visual"] is kept
    assert modality.impute(dataset, "mean").projections["visual"] is kept
    assert not dataclasses.replace(
        dataset, modalities={"sound": dataset.modalities["sound"]}
    ).projections
    wide = {"visual": Modality(np.ones((ITEMS, 5)), np.ones(ITEMS, bool))}
    with pytest.raises(DataError, match="visual has 5 columns, its reduction gives 3"):
        dataclasses.replace(dataset, modalities=wide)


@pytest.fixture
def folder(dataset: Dataset, tmp_path: Path) -> Path:
    data.save(dataset, tmp_path / "data")
    return tmp_path / "data"


def test_saved_and_read_back(dataset: Dataset, folder: Path) -> None:
    found = data.load(folder)
    assert (
        set(found.projections) == {"visual"}
        and found.projections["visual"].hash == dataset.projections["visual"].hash
    )
    assert found.projections["visual"].components.dtype == np.float32
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["modalities"]["visual"]["reduction"] == {
        "from": RAW,
        "hash": dataset.projections["visual"].hash,
    }
    assert "reduction" not in manifest["modalities"]["sound"]
    assert {path.name for path in folder.glob("*.components.npy")} == {FILES[1]}


def without_map(folder: Path) -> None:
    """As a version wrote it that kept no map."""
    for name in FILES:
        (folder / name).unlink()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["modalities"]["visual"]["reduction"]
    forged.rewrite(folder / MANIFEST, manifest)


def test_data_without_a_map_is_read_as_before(dataset: Dataset, folder: Path) -> None:
    without_map(folder)
    found = data.load(folder)
    assert not found.projections and found.hash == dataset.hash


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_damaged_map_is_one_line(folder: Path, name: str) -> None:
    content, draw = (folder / name).read_bytes(), np.random.default_rng(0)
    flipped = bytearray(content)
    flipped[-2] ^= 64
    for damaged in (
        None,
        b"",
        content[: len(content) // 2],
        content[:-1],
        draw.bytes(len(content)),
        bytes(flipped),
    ):
        (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
        with pytest.raises(
            DataError, match="the map that reduces visual in .*run preprocess again"
        ) as error:
            data.load(folder)
        assert "\n" not in str(error.value)
    array = np.load(folder / FILES[1 - FILES.index(name)], allow_pickle=False)
    for other in (
        array,
        array[:1],
        array.astype(np.float64) * 2,
        array.astype(str),
        np.zeros_like(array, dtype=int),
    ):
        np.save(folder / name, other, allow_pickle=False)
        with pytest.raises(DataError, match="the map that reduces visual"):
            data.load(folder)


@pytest.mark.parametrize(
    "value",
    [True, 5, [], {}, {"from": RAW}, {"from": RAW, "hash": "0" * 64}, {"from": [1], "hash": {}}],
)
def test_an_edited_manifest_is_noticed(folder: Path, value: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["modalities"]["visual"]["reduction"] = value
    forged.rewrite(folder / MANIFEST, manifest)
    valid = isinstance(value, dict) and value.get("hash") == "0" * 64
    with pytest.raises(
        DataError,
        match="not the one that was written" if valid else r"modalities\.visual\.reduction",
    ):
        data.load(folder)
    manifest["modalities"]["sound"]["reduction"] = value
    manifest["modalities"]["visual"].pop("reduction")
    forged.rewrite(folder / MANIFEST, manifest)
    missing = r"reduces sound in .*modality\.sound\.mean\.npy does not exist"
    with pytest.raises(DataError, match=missing if valid else r"modalities\.sound\.reduction"):
        data.load(folder)


def test_a_pickle_in_its_place_does_not_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "executed"

    class Exploit:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
            return (open, (str(trap), "w"))

    np.save(folder / FILES[1], np.array([Exploit()] * WIDTH, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        data.load(folder)
    assert not trap.exists()


# ---------------------------------------------------------------- used


def test_files_of_new_videos_may_be_raw(dataset: Dataset, tmp_path: Path) -> None:
    values = raw_visual()[[7, HOLE, 2]]
    np.save(tmp_path / "visual.npy", values)
    (tmp_path / "visual_ids.txt").write_text("new1\nnew2\nnew3\n")
    ids, found = read_new_items(
        [tmp_path / "visual.npy"], dataset.modalities, dataset.item_ids, dataset.projections
    )
    assert ids.tolist() == ["new1", "new2", "new3"] and found["visual"].present.tolist() == [
        True,
        False,
        True,
    ]
    np.testing.assert_allclose(
        found["visual"].values, dataset.modalities["visual"].values[[7, HOLE, 2]], atol=1e-5
    )


def test_an_update_takes_raw_features_and_carries_the_map_over(dataset: Dataset) -> None:
    hole = int(np.flatnonzero(~dataset.modalities["visual"].present)[0])
    ids = np.array(["new1", dataset.item_ids[hole]])
    raw = raw_visual(5)[:2]
    log = RawLog(np.array([0]), np.array([0]), np.array(["u03"]), np.array(["new1"]), rows_read=1)

    def day(values: np.ndarray) -> RawInput:
        return RawInput(log, {"visual": RawModality(ids, values, np.ones(2, bool), "visual.npy")})

    kept = dataset.projections["visual"]
    wide, added = growth.extend(dataset, day(raw))
    narrowed, _ = growth.extend(dataset, day(kept.apply(raw, np.ones(2, bool))))
    assert (
        wide.hash == narrowed.hash
        and wide.projections["visual"] is kept
        and added.filled == {"visual": 1}
    )
    np.testing.assert_allclose(
        wide.modalities["visual"].values[-1], (raw[0] - kept.mean) @ kept.components.T, atol=1e-4
    )
    with pytest.raises(
        DataError,
        match=r"visual\.npy has 8 columns, visual of the catalogue has 3, reduced from 11",
    ):
        growth.extend(dataset, day(raw[:, :8]))


def plain(*words: object) -> Result:
    """Run a command that takes no --gpu."""
    return CliRunner().invoke(group, [str(word) for word in words])


def test_from_the_raw_log_to_a_raw_new_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = raw_input(raw_visual()).log
    rows = [f"{log.user_ids[u]},{log.item_ids[i]}" for u, i in zip(log.user, log.item, strict=True)]
    Path("log.csv").write_text("\n".join(["user,item", *rows, ""]))
    np.save("visual.npy", raw_visual())
    Path("visual_ids.txt").write_text("\n".join(log.item_ids.tolist()))
    made = plain(
        "preprocess",
        "--input",
        "log.csv",
        "--features",
        "visual.npy",
        "--k-core",
        0,
        "--feature-dim",
        WIDTH,
    )
    assert made.exit_code == 0 and "3 columns" in made.stdout, made.output
    assert call("train", "--epochs", 1, "--set", "width=5", "--set", "hidden=4").exit_code == 0
    door, values = newcomers.load("runs/dualgnn"), raw_visual()[[2, 7]]
    there = np.array([True, False])
    wide = door.items({"visual": Modality(values, there)})
    kept = door.dataset.projections["visual"]
    torch.testing.assert_close(
        wide, door.items({"visual": Modality(kept.apply(values, there), there)})
    )

    Path("later").mkdir()
    np.save("later/visual.npy", values)
    Path("later/visual_ids.txt").write_text("new1\nnew2\n")
    words = [
        "recommend",
        "--user",
        "u03",
        "--new-items",
        "later/visual.npy",
        "--only-new",
        "--k",
        2,
    ]
    found = call(*words, "--json")
    assert found.exit_code == 0, found.output
    listed = {row["item"]: row["score"] for row in json.loads(found.stdout)["users"][0]["items"]}
    user = door.user[door.dataset.user_ids.tolist().index("u03")]
    expected = user @ door.items({"visual": Modality(values, np.ones(2, bool))}).T
    np.testing.assert_allclose(
        [listed["new1"], listed["new2"]], expected.tolist(), rtol=1e-4, atol=1e-6
    )
    Path("day.csv").write_text("user,item\nu03,new1\nu04,new2\n")
    grown = plain("update", "--input", "day.csv", "--features", "later/visual.npy")
    assert grown.exit_code == 0 and "2 micro-videos" in grown.stdout, grown.output
    larger = data.load("data-updated")
    assert (
        larger.projections["visual"].hash == kept.hash
        and larger.modalities["visual"].present[-2:].all()
    )

    np.save("later/visual.npy", values[:, :6])
    again = plain("update", "--input", "day.csv", "--features", "later/visual.npy", "--force")
    for refused in (call(*words), again):
        assert (
            refused.exit_code == 1
            and "has 6 columns, visual of the catalogue has 3, reduced from 11" in refused.stderr
        )
    Path("data", FILES[0]).unlink()
    refused = call(*words)
    assert (
        refused.exit_code == 1
        and "the map that reduces visual in data" in refused.stderr.splitlines()[-1]
    )
