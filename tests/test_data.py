"""What a prepared data set promises, and its folder.

Saved and read back whole, damage named in one line.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.data import (
    MANIFEST,
    SPLITS,
    CoOccurrence,
    Dataset,
    Interactions,
    Modality,
    load,
    save,
)
from dualgnn_dgl.errors import DataError, DualGNNError, RunError


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """Flushing to the disk is tested in test_files.py; here it would only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


def assert_same(one: Dataset, two: Dataset) -> None:
    """Every array, name and order of two data sets."""
    assert one.hash == two.hash
    for split in SPLITS:
        a, b = getattr(one, split), getattr(two, split)
        np.testing.assert_array_equal(a.user, b.user)
        np.testing.assert_array_equal(a.item, b.item)
        assert (a.num_users, a.num_items) == (b.num_users, b.num_items)
        assert a.user.dtype == b.user.dtype == np.int64
    assert list(one.modalities) == list(two.modalities)
    for name in one.modalities:
        np.testing.assert_array_equal(one.modalities[name].values, two.modalities[name].values)
        np.testing.assert_array_equal(one.modalities[name].present, two.modalities[name].present)
        assert (
            two.modalities[name].values.dtype == np.float32
            and two.modalities[name].present.dtype == bool
        )
    assert (
        one.user_ids.tolist() == two.user_ids.tolist()
        and one.item_ids.tolist() == two.item_ids.tolist()
    )
    assert (one.titles is None) == (two.titles is None)
    assert one.titles is None or list(one.titles) == list(two.titles)
    assert (one.co_occurrence is None) == (two.co_occurrence is None)
    if one.co_occurrence is not None:
        for field in ("indptr", "neighbour", "weight"):
            np.testing.assert_array_equal(
                getattr(one.co_occurrence, field), getattr(two.co_occurrence, field)
            )
        assert one.co_occurrence.measure == two.co_occurrence.measure


# ---------------------------------------------------------------- the promises of the types


@pytest.mark.parametrize(
    ("user", "item", "words"),
    [
        ([0, 3], [0, 1], "user index"),
        ([0, -1], [0, 1], "user index"),
        ([0, 1], [0, 5], "item index"),
        ([0, 1], [0, -2], "item index"),
        ([0, 1], [0], "2 users but 1 items"),
        ([0, 1, 0, 0], [2, 1, 2, 2], "2 pairs twice"),
    ],
)
def test_interactions_refuse(user, item, words):
    with pytest.raises(DataError, match=words):
        Interactions(np.array(user), np.array(item), 3, 5)


@pytest.mark.parametrize(
    "values",
    [np.array([0.5, 1.0]), np.array([0.0, np.nan]), np.array(["0", "1"]), np.array([True, False])],
)
def test_interactions_refuse_what_is_no_whole_number(values):
    with pytest.raises(DataError, match="whole numbers"):
        Interactions(values, np.array([0, 1]), 3, 5)


def test_interactions_may_be_empty_and_give_the_matrix():
    empty = Interactions(np.array([]), np.array([]), 3, 5)
    assert len(empty) == 0 and empty.csr().shape == (3, 5) and empty.csr().nnz == 0
    some = Interactions(np.array([2, 0, 2]), np.array([4, 1, 0]), 3, 5)
    expected = np.zeros((3, 5))
    expected[[2, 0, 2], [4, 1, 0]] = 1
    np.testing.assert_array_equal(some.csr().toarray(), expected)
    assert some.csr().has_sorted_indices and some.csr().dtype == np.float32


def test_keys_do_not_overflow_for_large_catalogues():
    part = Interactions(
        np.array([3_000_000, 2_999_999], np.int32),
        np.array([4_000_000, 5], np.int32),
        3_000_001,
        4_000_001,
    )
    assert part.keys().tolist() == [3_000_000 * 4_000_001 + 4_000_000, 2_999_999 * 4_000_001 + 5]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_modality_zeroes_absent_rows_and_refuses_present_poison(poison):
    values = np.ones((4, 3))
    values[2] = poison
    modality = Modality(values, np.array([True, True, False, True]))
    assert modality.values.dtype == np.float32
    np.testing.assert_array_equal(modality.values[2], np.zeros(3))
    assert modality.coverage == 0.75 and modality.width == 3
    assert np.array_equal(values[2], np.full(3, poison), equal_nan=True), (
        "what was received is not changed"
    )
    with pytest.raises(DataError, match="row 2"):
        Modality(values, np.ones(4, bool))


@pytest.mark.parametrize(
    ("values", "present"), [(np.ones(4), np.ones(4, bool)), (np.ones((4, 2)), np.ones(3, bool))]
)
def test_modality_refuses_wrong_shapes(values, present):
    with pytest.raises(DataError, match="a modality needs"):
        Modality(values, present)


@pytest.mark.parametrize(
    ("indptr", "neighbour", "weight"),
    [
        ([0, 1, 3], [1, 0], [1.0, 1.0]),
        ([0, 2, 1], [1], [1.0]),
        ([1, 1, 2], [1, 0], [1.0, 1.0]),
        ([0, 1, 2], [1, 0], [1.0]),
        ([0, 1, 2], [1, 2], [1.0, 1.0]),
        ([0, 1, 2], [-1, 0], [1.0, 1.0]),
        ([], [], []),
    ],
)
def test_co_occurrence_lists_that_do_not_fit_are_refused(indptr, neighbour, weight):
    with pytest.raises(DataError, match="co-occurrence"):
        CoOccurrence(np.array(indptr), np.array(neighbour), np.array(weight))


def test_dataset_refuses_overlapping_splits_with_their_count():
    data = small.dataset()
    pairs = small.pairs_of(data.valid) + small.pairs_of(data.train)[:2]
    for split in ("valid", "test"):
        with pytest.raises(DataError, match=r"share \d+ pairs"):
            dataclasses.replace(
                data, **{split: small.interactions(pairs, data.num_users, data.num_items)}
            )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user_ids": np.array(["a"] * small.USERS)}, "12 ids twice"),
        ({"item_ids": np.array(["a"] * 5)}, "twice"),
        ({"user_ids": np.arange(5).astype(str)}, "counts 13 users"),
        ({"titles": np.array(["t"] * 3)}, "3 titles for 19 items"),
        (
            {"modalities": {"visual": Modality(np.ones((3, 2)), np.ones(3, bool))}},
            "3 rows for 19 items",
        ),
        (
            {"co_occurrence": CoOccurrence(np.array([0]), np.array([]), np.array([]))},
            "co-occurrence lists 0 users",
        ),
    ],
)
def test_dataset_refuses_parts_that_do_not_fit(change, words):
    with pytest.raises(DataError, match=words):
        dataclasses.replace(small.dataset(), **change)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "../x", "a\0b", "x" * 300, "a\nb"]
)
def test_modality_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(DataError, match="modality"):
        dataclasses.replace(
            small.dataset(),
            modalities={name: Modality(np.ones((small.ITEMS, 2)), np.ones(small.ITEMS, bool))},
        )


# ---------------------------------------------------------------- the hash


def test_hash_changes_with_any_change():
    data = small.dataset()
    first = data.modalities["visual"]
    values = first.values.copy()
    values[0, 0] = np.nextafter(values[0, 0], np.float32(np.inf))
    fewer = np.array(first.present)
    fewer[0] = False
    lists = data.co_occurrence
    swapped = small.interactions(small.pairs_of(data.train)[::-1], data.num_users, data.num_items)
    others = {
        "valid and test exchanged": {"valid": data.test, "test": data.valid},
        "order of the pairs": {"train": swapped},
        "one pair less": {
            "test": small.interactions(
                small.pairs_of(data.test)[1:], data.num_users, data.num_items
            )
        },
        "last bit of a feature": {
            "modalities": {**data.modalities, "visual": Modality(values, first.present)}
        },
        "a hole": {"modalities": {**data.modalities, "visual": Modality(first.values, fewer)}},
        "a modality less": {"modalities": {"visual": first}},
        "names exchanged": {
            "modalities": dict(
                zip(data.modalities, reversed(data.modalities.values()), strict=True)
            )
        },
        "order of the modalities": {"modalities": dict(reversed(data.modalities.items()))},
        "a user id": {"user_ids": np.array(["zz", *data.user_ids[1:]])},
        "an item id": {"item_ids": np.array(["zz", *data.item_ids[1:]])},
        "titles": {"titles": np.array([""] * data.num_items)},
        "no lists": {"co_occurrence": None},
        "a weight": {"co_occurrence": dataclasses.replace(lists, weight=lists.weight * 2)},
        "the measure": {"co_occurrence": dataclasses.replace(lists, measure="cosine")},
    }
    hashes = {name: dataclasses.replace(data, **change).hash for name, change in others.items()}
    hashes["unchanged"] = dataclasses.replace(data).hash
    assert hashes["unchanged"] == data.hash
    assert len(set(hashes.values())) == len(hashes), hashes


def test_the_hash_cannot_be_given_from_outside():
    """A hash that does not describe the content would let a run pass for one of other data."""
    data = small.dataset()
    with pytest.raises((TypeError, ValueError, DataError)):
        Dataset(
            data.train,
            data.valid,
            data.test,
            data.modalities,
            data.user_ids,
            data.item_ids,
            hash="0" * 64,
        )


# ---------------------------------------------------------------- the folder

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=6)


@st.composite
def datasets(draw) -> Dataset:
    """Any data set: odd ids, empty splits, no modality or several, with or without titles and
    lists.
    """
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    cells = draw(
        st.lists(
            st.sampled_from(["train", "valid", "test", None]),
            min_size=users * items,
            max_size=users * items,
        )
    )
    parts = {
        split: [(c // items, c % items) for c, s in enumerate(cells) if s == split]
        for split in SPLITS
    }
    order = draw(st.randoms(use_true_random=False))
    for pairs in parts.values():
        order.shuffle(pairs)
    modalities = {}
    for name in draw(
        st.lists(
            st.sampled_from(["visual", "acoustic", "Ton 東", "a.values", "-m"]),
            max_size=3,
            unique=True,
        )
    ):
        width = draw(st.integers(1, 4))
        number = st.floats(width=32, allow_nan=False, allow_infinity=False)
        values = draw(st.lists(number, min_size=items * width, max_size=items * width))
        present = draw(st.lists(st.booleans(), min_size=items, max_size=items))
        modalities[name] = Modality(
            np.array(values, np.float32).reshape(items, width), np.array(present)
        )
    train = small.interactions(parts["train"], users, items)
    return Dataset(
        train,
        small.interactions(parts["valid"], users, items),
        small.interactions(parts["test"], users, items),
        modalities=modalities,
        user_ids=np.array(
            draw(st.lists(TEXT, min_size=users, max_size=users, unique=True)), np.str_
        ),
        item_ids=np.array(
            draw(st.lists(TEXT, min_size=items, max_size=items, unique=True)), np.str_
        ),
        titles=draw(
            st.none()
            | st.lists(TEXT, min_size=items, max_size=items).map(lambda t: np.array(t, np.str_))
        ),
        co_occurrence=small.shared_items(train) if draw(st.booleans()) else None,
    )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(datasets())
def test_save_then_load_is_the_identity(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("prepared") / "data"
    save(data, folder, options={"seed": 3})
    assert_same(load(folder), data)
    shutil.rmtree(folder)


def prepared(tmp_path) -> Dataset:
    data = dataclasses.replace(
        small.dataset(), titles=np.array([f"Film {i} – é" for i in range(small.ITEMS)])
    )
    save(data, tmp_path / "data", options={"k": 1}, report={"users": 13})
    return data


def test_what_the_folder_says_of_itself(tmp_path):
    data = prepared(tmp_path)
    manifest = json.loads((tmp_path / "data" / MANIFEST).read_text("utf-8"))
    assert manifest["users"] == 13 and manifest["items"] == 19 and manifest["hash"] == data.hash
    assert manifest["interactions"] == {split: len(getattr(data, split)) for split in SPLITS}
    assert manifest["modalities"]["acoustic"] == {
        "width": 7,
        "coverage": data.modalities["acoustic"].present.mean(),
    }
    assert manifest["options"] == {"k": 1}
    assert json.loads((tmp_path / "data" / "report.json").read_text()) == {"users": 13}
    assert {path.suffix for path in (tmp_path / "data").iterdir()} == {".json", ".parquet", ".npy"}


def test_saved_twice_is_refused_and_force_replaces(tmp_path):
    prepared(tmp_path)
    other = small.dataset(seed=9, modalities=("visual",))
    with pytest.raises(RunError, match="--force"):
        save(other, tmp_path / "data")
    save(other, tmp_path / "data", force=True)
    assert_same(load(tmp_path / "data"), other)
    assert not list((tmp_path / "data").glob("*acoustic*")), "nothing of the old content stays"


def one_line(error: BaseException) -> bool:
    text = str(error)
    return text.strip() == text and "\n" not in text and 0 < len(text) < 500


def names_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "report.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return prepared(folder), folder / "data"


def copied(whole, tmp_path):
    target = tmp_path / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole[1], target)
    return target


def test_any_file_missing_is_one_line(whole, tmp_path):
    for name in names_of(whole[1]):
        target = copied(whole, tmp_path)
        (target / name).unlink()
        with pytest.raises(DataError, match=name.replace(".", r"\.")) as error:
            load(target)
        assert one_line(error.value)


def test_any_file_emptied_or_cut_or_turned_to_noise_is_one_line(whole, tmp_path):
    draw = np.random.default_rng(0)
    for name in names_of(whole[1]):
        content = (whole[1] / name).read_bytes()
        target = copied(whole, tmp_path)
        for damaged in (
            b"",
            content[: len(content) // 2],
            content[:-1],
            draw.bytes(len(content)),
            b"PAR1" + bytes(60) + b"PAR1",
        ):
            if name.endswith(".json") and damaged == content[:-1]:
                continue  # only the last line break
            (target / name).write_bytes(damaged)
            with pytest.raises(DataError) as error:
                load(target)
            assert one_line(error.value), name


def test_any_byte_changed_is_one_line_or_changes_nothing(whole, tmp_path):
    """Flipped bytes: an error in one line, or the very same data set (a byte that carries
    nothing).
    """
    data, folder = whole
    draw = np.random.default_rng(1)
    target = copied(whole, tmp_path)
    refused = 0
    for name in names_of(folder):
        content = bytearray((folder / name).read_bytes())
        for place in draw.integers(len(content), size=12).tolist():
            changed = content.copy()
            changed[place] ^= int(draw.integers(1, 256))
            (target / name).write_bytes(changed)
            try:
                assert_same(load(target), data)
            except DataError as error:
                assert one_line(error), name
                refused += 1
        (target / name).write_bytes(content)
    assert refused > 50


def test_files_exchanged_are_noticed(whole, tmp_path):
    for one, two in (
        ("valid.parquet", "test.parquet"),
        ("users.parquet", "items.parquet"),
        ("modality.visual.values.npy", "modality.acoustic.values.npy"),
        ("modality.visual.present.npy", "modality.acoustic.present.npy"),
        ("co_occurrence.parquet", "train.parquet"),
    ):
        target = copied(whole, tmp_path)
        (target / one).rename(target / "aside")
        (target / two).rename(target / one)
        (target / "aside").rename(target / two)
        with pytest.raises(DataError) as error:
            load(target)
        assert one_line(error.value)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(format=3),
        lambda m: m.pop("format"),
        lambda m: m.update(hash="0" * 64),
        lambda m: m.pop("hash"),
        lambda m: m["modalities"].pop("visual"),
        lambda m: m["modalities"].update(extra={"width": 1}),
        lambda m: m.update(modalities=dict(reversed(m["modalities"].items()))),
        lambda m: m["modalities"].update({"../secret": {}}),
        lambda m: m.update(modalities=["visual"]),
        lambda m: m.pop("modalities"),
        lambda m: m.update(titles=False),
        lambda m: m.update(co_occurrence=None),
        lambda m: m.update(co_occurrence="cosine"),
        lambda m: m.update(users=14),
        lambda m: m.update(items="19"),
        lambda m: m["interactions"].update(train=3),
        lambda m: m.pop("interactions"),
    ],
)
def test_an_edited_manifest_is_noticed(whole, tmp_path, edit):
    target = copied(whole, tmp_path)
    manifest = json.loads((target / MANIFEST).read_text("utf-8"))
    edit(manifest)
    (target / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(DataError) as error:
        load(target)
    assert one_line(error.value)


def rewritten(target, name, **columns):
    pq.write_table(pa.table(columns), target / name)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("train.parquet", {"user": [0], "item": [99]}),
        ("train.parquet", {"user": [-1], "item": [0]}),
        ("train.parquet", {"user": [0, 0], "item": [0, 0]}),
        ("train.parquet", {"user": [0.5], "item": [0.0]}),
        ("train.parquet", {"user": [None, 1], "item": [1, 2]}),
        ("train.parquet", {"user": ["x"], "item": ["y"]}),
        ("train.parquet", {"user": [[1]], "item": [[2]]}),
        ("train.parquet", {"benutzer": [1], "item": [2]}),
        ("users.parquet", {"id": ["a", "a"]}),
        ("users.parquet", {"id": [None, "a"]}),
        ("items.parquet", {"id": ["a"]}),
        ("co_occurrence.parquet", {"neighbour": [1], "weight": [1.0]}),
        ("co_occurrence.parquet", {"neighbour": [1]}),
    ],
)
def test_rewritten_tables_are_noticed(whole, tmp_path, name, columns):
    target = copied(whole, tmp_path)
    rewritten(target, name, **columns)
    with pytest.raises(DataError) as error:
        load(target)
    assert one_line(error.value)


@pytest.mark.parametrize(
    "where",
    ["modality.visual.values.npy", "modality.visual.present.npy", "co_occurrence.indptr.npy"],
)
def test_pickles_planted_in_the_folder_do_not_run(whole, tmp_path, where):
    trap = tmp_path / "executed"

    class Exploit:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    target = copied(whole, tmp_path)
    np.save(target / where, np.array([Exploit()] * small.ITEMS, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        load(target)
    assert not trap.exists()


def test_folders_that_are_no_prepared_data(tmp_path):
    with pytest.raises(DataError, match="dualgnn preprocess"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match="not a prepared data folder"):
        load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DualGNNError):
        load(tmp_path / "file")


@pytest.mark.parametrize("after", [0, 1, 3])
def test_full_disk_in_the_middle_leaves_nothing_or_the_old_one(tmp_path, monkeypatch, after):
    old = prepared(tmp_path)
    real, calls = np.save, []

    def full(*arguments, **keywords):
        calls.append(1)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **keywords)

    monkeypatch.setattr(np, "save", full)
    for name in ("data", "other"):
        calls.clear()
        with pytest.raises(OSError, match="No space"):
            save(small.dataset(seed=4), tmp_path / name, force=True)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert_same(load(tmp_path / "data"), old)


def test_a_folder_of_an_earlier_version_is_read_and_replaced(whole, tmp_path):
    """Format 1 had no list of files, so what is ours there goes by its name."""
    target = copied(whole, tmp_path)
    manifest = json.loads((target / MANIFEST).read_text("utf-8"))
    del manifest["files"], manifest["self"]
    (target / MANIFEST).write_text(json.dumps(manifest | {"format": 1}), "utf-8")
    (target / "notes.txt").write_text("precious")
    loaded = load(target)
    assert loaded.hash == manifest["hash"]
    save(loaded, target, force=True)
    assert (
        load(target).hash == manifest["hash"] and (target / "notes.txt").read_text() == "precious"
    )
    assert "report.json" not in {path.name for path in target.iterdir()}
    (target / MANIFEST).write_text(json.dumps(manifest | {"format": 2}), "utf-8")
    with pytest.raises(DataError, match="not what was written"):
        load(target)
