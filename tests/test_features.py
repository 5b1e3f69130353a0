"""Item features: arrays and tables read back, holes told from zeros, wrong files in one line,
reduction against plain PCA.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from threadpoolctl import threadpool_limits

from dualgnn_dgl.data.raw import RawModality
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.readers.features import (
    looks_like_features,
    modality_name,
    read_modality,
    reduce_width,
)
from dualgnn_dgl.readers.items import read_items
from dualgnn_dgl.readers.reader import read

LOG_IDS = np.array(["2", "0", "4"])


def from_array(
    folder: Path, array: np.ndarray, log_ids: np.ndarray = LOG_IDS, **options: object
) -> RawModality:
    np.save(folder / "visual.npy", array, allow_pickle=array.dtype == object)
    return read_modality(folder / "visual.npy", log_ids, "log.csv", **options)


def from_table(
    folder: Path, columns: dict, name: str = "visual.parquet", log_ids: np.ndarray = LOG_IDS
) -> RawModality:
    if name.endswith("parquet"):
        pq.write_table(pa.table(columns), folder / name, row_group_size=2)
    else:
        pa.table(columns).to_pandas().to_csv(folder / name, index=False)
    return read_modality(folder / name, log_ids, "log.csv")


# --- reading back -------------------------------------------------------------------------------

tables = hnp.arrays(
    np.float32,
    st.tuples(st.integers(5, 9), st.integers(1, 4)),
    elements=st.floats(-60000, 60000, width=16, allow_subnormal=False),
)


@pytest.mark.parametrize("kind", ["array", "fixed lists", "lists", "columns", "csv", "tsv"])
@settings(max_examples=25, deadline=None)
@given(
    values=tables,
    kind_of_number=st.sampled_from([np.float16, np.float32, np.float64]),
    data=st.data(),
)
def test_values_and_holes_are_read_back(
    kind: str, values: np.ndarray, kind_of_number: type, data: st.DataObject
) -> None:
    present = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    )
    present[0] = True
    holed = values.astype(kind_of_number)
    expected = holed.astype(np.float32)
    holed[~present] = np.nan
    ids = [str(i) for i in range(len(values))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "array":
            read_back = from_array(folder, holed)
        elif kind == "columns":
            read_back = from_table(
                folder, {"item_id": ids, **{f"f{j}": holed[:, j] for j in range(values.shape[1])}}
            )
        elif kind in ("csv", "tsv"):
            header = ",".join(["item_id", *(f"f{j}" for j in range(values.shape[1]))])
            lines = [
                ",".join([i, *("" if np.isnan(x) else repr(float(x)) for x in row)])
                for i, row in zip(ids, holed, strict=True)
            ]
            text = "\n".join([header, *lines]) + "\n"
            (folder / f"v.{kind}").write_text(text.replace(",", "\t") if kind == "tsv" else text)
            read_back = read_modality(folder / f"v.{kind}", LOG_IDS, "log.csv")
        else:
            # an absent row by turns as null, as NaN throughout and (where lists may differ) as an
            # empty list (pyarrow before 26 does not read a null among lists of fixed length back
            # from Parquet)
            null = (
                None
                if kind == "lists" or int(pa.__version__.split(".")[0]) >= 26
                else [float("nan")] * values.shape[1]
            )
            absent = [null, [float("nan")] * values.shape[1], [] if kind == "lists" else null]
            lists = [
                row.tolist() if there else absent[r % 3]
                for r, (row, there) in enumerate(zip(holed, present, strict=True))
            ]
            size = -1 if kind == "lists" else values.shape[1]
            column = pa.array(lists, pa.list_(pa.float32(), size)).cast(
                pa.list_(pa.from_numpy_dtype(kind_of_number), size)
            )
            read_back = from_table(folder, {"item_id": ids, "feature": column, "title": ids})
    assert read_back.ids.tolist() == ids and read_back.present.tolist() == present.tolist()
    assert read_back.values.dtype == np.float32
    np.testing.assert_array_equal(read_back.values[present], expected[present])


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float64, np.float16])
def test_numbers_become_float32(tmp_path: Path, kind: type) -> None:
    array = np.arange(15).reshape(5, 3).astype(kind)
    assert from_array(tmp_path, array).values.dtype == np.float32
    np.testing.assert_array_equal(from_array(tmp_path, array).values, array)


def test_zero_rows_are_present(tmp_path: Path) -> None:
    assert from_array(tmp_path, np.zeros((5, 2))).present.all()


def test_columns_of_pandas_indices_are_no_features(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(",item_id,a\n0,2,1.5\n1,7,2.5\n")
    assert read_modality(tmp_path / "v.csv", LOG_IDS, "log.csv").values.tolist() == [[1.5], [2.5]]


def test_ids_in_tables_meet_those_of_the_log(tmp_path: Path) -> None:
    columns = {"movieId": pa.array([2.0, 9.0]), "f": pa.array([1, 2])}
    assert from_table(tmp_path, columns).ids.tolist() == ["2", "9"]
    assert from_table(tmp_path, columns, "v.csv").ids.tolist() == ["2", "9"]
    assert from_table(
        tmp_path, {"ML_Id": pa.array(["2"]).dictionary_encode(), "f": pa.array([1])}
    ).ids.tolist() == ["2"]


# --- what an array is aligned with --------------------------------------------------------------


def test_an_array_follows_the_item_table(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\nb,Bee\na,\n4,Four\n")
    items = read_items(tmp_path / "items.csv")
    assert from_array(tmp_path, np.ones((3, 2)), items=items).ids.tolist() == ["b", "a", "4"]
    with pytest.raises(DataError) as caught:
        from_array(tmp_path, np.ones((5, 2)), items=items)
    assert str(caught.value) == (
        "visual.npy has 5 rows but items.csv lists 3 items. Row r of an array must describe row r "
        "of items.csv."
    )


@pytest.mark.parametrize("name", ["visual_ids.txt", "visual.ids.txt"])
@pytest.mark.parametrize("text", ["x y\n2\n007\n", "item_id\nx y\n2\n007\n"])
def test_a_list_beside_the_array_goes_first(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "items.csv").write_text("item\n1\n")
    assert from_array(
        tmp_path, np.ones((3, 2)), items=read_items(tmp_path / "items.csv")
    ).ids.tolist() == ["x y", "2", "007"]


def test_an_array_without_a_list_goes_by_number(tmp_path: Path) -> None:
    assert from_array(tmp_path, np.ones((6, 2))).ids.tolist() == list("012345")
    with pytest.raises(
        DataError,
        match="visual.npy has 4 rows but the items of log.csv are numbered up to 4.*visual_ids.txt",
    ):
        from_array(tmp_path, np.ones((4, 2)))
    for other in ("x", "04", "-1", "1.5"):
        with pytest.raises(
            DataError, match=f"nothing says which item each describes.*'{other}'.*--items"
        ):
            from_array(tmp_path, np.ones((9, 2)), np.array(["2", other]))


def test_rows_that_belong_to_no_item_are_reported(tmp_path: Path) -> None:
    """Ids that are not 0 … n−1 are perhaps no row numbers.

    An array in another order would go unnoticed.
    """
    dense = np.array(["0", "1", "2", "3"])
    assert from_array(tmp_path, np.ones((4, 2)), dense).notes == ()
    (note,) = from_array(tmp_path, np.ones((7, 2)), dense).notes
    assert "3 of its 7 rows belong to no item of log.csv" in note and "--items" in note
    (tmp_path / "items.csv").write_text("item\n" + "\n".join(map(str, range(7))))
    assert (
        from_array(tmp_path, np.ones((7, 2)), dense, items=read_items(tmp_path / "items.csv")).notes
        == ()
    )


def test_whole_numbers_beyond_a_floats_are_rounded(tmp_path: Path) -> None:
    """Arrow's cast refuses them; found by the mutation fuzzer."""
    large = from_table(
        tmp_path,
        {
            "item": ["2", "3"],
            "f": pa.array([2**63, 2**64 - 1], pa.uint64()),
            "g": [-(2**63), 2**53 + 1],
        },
    )
    assert large.values.tolist() == [[2.0**63, -(2.0**63)], [2.0**64, 2.0**53]]
    listed = from_table(
        tmp_path, {"item": ["2", "3"], "f": pa.array([[2**63], [5]], pa.list_(pa.uint64()))}
    )
    assert listed.values.tolist() == [[2.0**63], [5.0]]


# --- wrong files --------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(7), r"visual.npy has the shape \(7,\)"),
        (np.ones((7, 2, 2)), r"shape \(7, 2, 2\)"),
        (np.ones((7, 0)), r"shape \(7, 0\)"),
        (np.array([["a"]] * 7), "holds values of type <U1: give numbers"),
        (np.ones((7, 2), complex), "holds complex128"),
        (np.ones((7, 2), bool), "holds bool"),
        (np.array([[None]] * 7), "Python objects"),
        (
            np.array([[1, 2]] * 5 + [[NAN, 2]] * 2),
            "visual.npy, row 5, holds NaN in 1 of 2 columns.*missing by NaN throughout",
        ),
        (np.array([[1, 2]] * 4 + [[NAN, INF]] * 3), "visual.npy, row 4, holds infinity"),
        (
            np.array([[1, 2]] * 3 + [[1, 1e39]] * 3),
            "visual.npy, row 3, holds infinity or a number beyond float32",
        ),
    ],
)
def test_wrong_arrays(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        from_array(tmp_path, array)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item": ["2", "3", "2"], "f": [1.0, 2, 3]}, "lists item '2' twice, in rows 1 and 3"),
        ({"item": ["2", None], "f": [1.0, 2]}, "row 2, has no item id"),
        (
            {"item": ["a", "b"], "f": [1.0, 2]},
            "shares no item with log.csv: its ids look like 'a', the log's like '2'",
        ),
        (
            {"item": ["2", "3"], "f": [1.0, 2], "g": [None, 2.0]},
            "the row of item '2', holds NaN in 1 of 2 columns",
        ),
        ({"item": ["2", "3"], "f": [1.0, INF]}, "the row of item '3', holds infinity"),
        ({"item": ["2"], "f": ["x"]}, "the column f holds string, features are numbers"),
        ({"item": ["2"], "f": [True]}, "the column f holds bool"),
        ({"item": ["2"]}, "no columns of features"),
        (
            {"colour": ["2"], "f": [1.0]},
            "has the columns colour, f; none is known to hold item ids",
        ),
        ({"item": pa.array([], pa.string()), "f": pa.array([], pa.float32())}, "holds no rows"),
        ({"item": ["2", "3"], "f": [[1.0], [1.0, 2.0]]}, "others have"),
        (
            {"item": ["2", "3", "4"], "f": [[1.0, 3.0], None, [1.0, None]]},
            "the row of item '4', holds NaN in 1 of 2",
        ),
        ({"item": ["2"], "f": [[]]}, "has the column f with empty lists only|empty lists only"),
        ({"item": ["2"], "f": [["a"]]}, "the column f holds list"),
        ({"item": ["2"], "f": [[1]], "g": [[1]]}, r"several columns of lists \(f, g\)"),
    ],
)
def test_wrong_tables(tmp_path: Path, columns: dict, message: str) -> None:
    with pytest.raises(DataError, match=f"visual.parquet.*({message})") as caught:
        from_table(tmp_path, columns)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "item,f,g\n2,1,2\n3,1,blue\n",
            "v.csv, row 2: the column g holds 'blue', features are numbers",
        ),
        ("item,f,f\n2,1,2\n", "has the column f twice"),
        ("item,f\n2,1\n3,1,2\n", "line 3, has 3 fields"),
        ("item,f\n", "holds no rows"),
        ("item,f\n2,inf\n", "item '2', holds infinity"),
    ],
)
def test_wrong_text_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_modality(tmp_path / "v.csv", LOG_IDS, "log.csv")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.pt").write_bytes(b"x")
    (tmp_path / "v.mat").write_bytes(b"x")
    (tmp_path / "v.npy").write_bytes(b"x")
    expected = {
        "v.pt": "is a pickle.*numpy.save",
        "v.mat": "is no feature file",
        "w.npy": "does not exist",
        "v.npy": "not a .npy array",
    }
    for name, message in expected.items():
        with pytest.raises(DataError, match=message):
            read_modality(tmp_path / name, LOG_IDS, "log.csv")


# --- what is found, and under which name --------------------------------------------------------


def test_names_of_modalities() -> None:
    names = {
        "visual.npy": "visual",
        "image_feat.npy": "image",
        "a-b_Features.csv": "a-b",
        "text_emb.parquet": "text",
    }
    names |= {
        "feat.npy": "feat",
        "clip embeddings.npy": "clip_embeddings",
        "title.minilm.csv.gz": "title.minilm",
    }
    assert {name: modality_name(Path(name)) for name in names} == names


def test_what_looks_like_features(tmp_path: Path) -> None:
    files = {
        "a.csv": ("ML_Id,f1,f2\n1,2,3\n", True),
        "links.csv": ("movieId,imdbId,tmdbId\n1,2,3\n", False),
        "links2.csv": ("movieId,imdb_id\n1,2\n", False),
        "valid.csv": ("movieId,valid\n1,2\n", True),
        "tags.csv": ("userId,movieId,f\n1,2,3\n", False),
        "texts.csv": ("item,words\n1,two\n", False),
        "ids.csv": ("item\n1\n", False),
        "seen.csv": ("item,timestamp\n1,2\n", False),
        "none.csv": ("", False),
        "notes.txt": ("item,f\n1,2\n", False),
        "x.npy": ("", True),
        "user_graph_dict.npy": ("", False),
    }
    for name, (text, expected) in files.items():
        (tmp_path / name).write_text(text)
        assert looks_like_features(tmp_path / name) == expected, name
    pq.write_table(
        pa.table({"item_id": [1], "feature": [[1.0]], "title": ["x"]}), tmp_path / "l.parquet"
    )
    pq.write_table(pa.table({"item_id": [1], "title": ["x"]}), tmp_path / "t.parquet")
    assert looks_like_features(tmp_path / "l.parquet") and not looks_like_features(
        tmp_path / "t.parquet"
    )


def test_features_in_a_folder_meet_the_log(tmp_path: Path) -> None:
    (tmp_path / "log.inter").write_text("userID\titemID\n0\t1\n0\t3\n")
    np.save(tmp_path / "v_feat.npy", np.ones((5, 2), np.float16))
    np.save(tmp_path / "word_ids.npy", np.ones((2, 9), np.int64))
    with pytest.raises(
        DataError,
        match="word_ids.npy has 2 rows but the items of log.inter are numbered up to 3.*--features",
    ):
        read(tmp_path)
    assert list(read(tmp_path, features=["v_feat.npy"]).modalities) == ["v"]


# --- fewer columns ------------------------------------------------------------------------------


def dense_pca(values: np.ndarray, width: int) -> np.ndarray:
    """The slow definition: coordinates along the leading eigenvectors of the covariance."""
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    return centred @ right[:width].T


def test_reduction_equals_the_dense_definition() -> None:
    rng = np.random.default_rng(5)
    values = (rng.normal(size=(60, 4)) @ rng.normal(size=(4, 11)) + 7).astype(np.float32)
    present = rng.random(60) < 0.7
    values[~present] = np.nan  # whatever an absent row holds, it has no say
    reduced, reduction = reduce_width(values, present, 3, 0)
    expected = dense_pca(values[present], 3)
    assert reduced.shape == (60, 3) and reduced.dtype == np.float32 and not reduced[~present].any()
    signs = np.sign((reduced[present] * expected).sum(axis=0))
    np.testing.assert_allclose(reduced[present], expected * signs, atol=2e-3)
    assert np.array_equal(reduced, reduce_width(values, present, 3, 0)[0])
    assert (reduction.raw_width, reduction.width) == (11, 3)
    np.testing.assert_allclose(reduction.components @ reduction.components.T, np.eye(3), atol=1e-5)


def test_a_large_reduction_is_fitted_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    values = (rng.normal(size=(211, 2)) @ rng.normal(size=(2, 9))).astype(np.float32)
    present = np.ones(211, bool)
    whole, _ = reduce_width(values, present, 2, 1)
    monkeypatch.setattr("dualgnn_dgl.readers.features.MOST_ROWS", 50)
    sampled, _ = reduce_width(values, present, 2, 1)
    assert not np.array_equal(sampled, whole) and np.array_equal(
        sampled, reduce_width(values, present, 2, 1)[0]
    )
    # two directions hold everything: distances between items survive either fit
    for reduced in (whole, sampled):
        distances = np.linalg.norm(reduced[:, None] - reduced[None], axis=-1)
        np.testing.assert_allclose(
            distances, np.linalg.norm(values[:, None] - values[None], axis=-1), atol=1e-3
        )


def test_reduced_features_are_the_same_bits_with_any_number_of_threads() -> None:
    """The data's hash is taken over them.

    Prepared on another machine of the kind, it is the same data.
    """
    import sklearn.decomposition  # noqa: F401

    values, found = np.random.default_rng(8).normal(size=(700, 640)).astype(np.float32), []
    for threads in (1, 2):
        with threadpool_limits(threads):
            reduced, reduction = reduce_width(values, np.ones(700, dtype=bool), 48, 0)
        found.append((reduced, reduction.components))
    assert all(np.array_equal(one, two) for one, two in zip(*found, strict=True))


def test_widths_that_leave_nothing_to_do_or_cannot_be() -> None:
    values, present = np.ones((5, 3), np.float16), np.array([True, True, False, False, False])
    for width in (3, 8):
        unchanged, reduction = reduce_width(values, present, width, 0)
        assert np.array_equal(unchanged, values) and reduction is None
    with pytest.raises(DataError, match="present for 1 items only.*--feature-dim of at most 1"):
        reduce_width(values, present & (np.arange(5) < 1), 2, 0)
    with pytest.raises(
        DataError, match="present for 2 items in training only.*--feature-dim of at most 2"
    ):
        reduce_width(np.ones((5, 4)), np.ones(5, bool), 3, 0, fitted=present)
    with pytest.raises(DataError, match="--feature-dim of at least 1"):
        reduce_width(values, present, 0, 0)
