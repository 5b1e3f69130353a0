"""Files appear whole or not at all, and reading one never runs anything."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.core.arrays import content_hash, load_array
from dualgnn_dgl.core.files import atomic_file, read_json, write_json
from dualgnn_dgl.errors import DataError, RunError


def everything(folder):
    """Every path below a folder, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class Exploit:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


# ---------------------------------------------------------------- reading


def test_object_array_is_refused_and_not_executed(tmp_path):
    trap = tmp_path / "executed"
    np.save(tmp_path / "bad.npy", np.array([Exploit(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"bad\.npy holds Python objects") as error:
        load_array(tmp_path / "bad.npy")
    assert not trap.exists() and "\n" not in str(error.value)
    np.load(tmp_path / "bad.npy", allow_pickle=True)  # the trap does work where it is let
    assert trap.exists()


def test_bare_pickle_named_npy_is_refused_and_not_executed(tmp_path):
    trap = tmp_path / "executed"
    (tmp_path / "bad.npy").write_bytes(pickle.dumps(Exploit(trap)))
    with pytest.raises(DataError, match="is a pickle, which can run code.*numpy.save"):
        load_array(tmp_path / "bad.npy")
    assert not trap.exists()


@pytest.mark.parametrize("mmap", [False, True])
def test_structured_array_with_an_object_field_is_refused(tmp_path, mmap):
    trap = tmp_path / "executed"
    array = np.array([(1, Exploit(trap))], dtype=[("a", "i4"), ("b", "O")])
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"bad\.npy"):
        load_array(tmp_path / "bad.npy", mmap=mmap)
    assert not trap.exists()


def test_zip_of_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "many.npz", a=np.arange(3))
    with pytest.raises(DataError, match="is an archive: unpack it.*numpy.save"):
        load_array(tmp_path / "many.npz")


@pytest.mark.parametrize("mmap", [False, True])
def test_arrays_survive(tmp_path, mmap):
    for number, array in enumerate(
        (np.arange(7), np.zeros((0, 3), np.float16), np.asfortranarray(np.ones((4, 5))))
    ):
        np.save(tmp_path / f"{number}.npy", array)
        loaded = load_array(tmp_path / f"{number}.npy", mmap=mmap)
        assert loaded.dtype == array.dtype
        np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x09\x00v\x00{}", b"hello\n" * 40],
)
def test_stumps_are_one_line(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy") as error:
        load_array(tmp_path / "a.npy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["S4", "U3", "M8[s]", "m8[s]", "V4", "i4,f4"])
@pytest.mark.parametrize("mmap", [False, True])
def test_only_numbers_are_read(tmp_path, kind, mmap):
    """One changed bit makes "<i4" of "<S4", whose values no later check can compare."""
    np.save(tmp_path / "a.npy", np.zeros(3, kind), allow_pickle=False)
    with pytest.raises(DataError, match=r"a\.npy holds values of type .*: give numbers"):
        load_array(tmp_path / "a.npy", mmap=mmap)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 'x'), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 30 + ",), }",
        "{'descr': 'zzz', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,",
        "__import__('os').system('true')",
        "(" * 5000,
        "[1, 2]",
        "'''",
        "{'descr': '<f4', 'shape': (3,), }",
        "\tx\n y",
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_nonsense_headers_are_one_line(tmp_path, header, mmap):
    raw = header.encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + bytes(12)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"a\.npy") as error:
            load_array(tmp_path / "a.npy", mmap=mmap)
    assert "\n" not in str(error.value)


def test_every_single_damaged_byte_of_a_header_is_an_error_or_harmless(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(24, dtype=np.float32).reshape(4, 6))
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in range(128):
            for value in (10, 40, int(draw.integers(256))):
                path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
                try:
                    load_array(path)
                except DataError as error:
                    assert "\n" not in str(error) and "a.npy" in str(error)


def test_every_cut_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(5, dtype=np.int64))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.npy"):
            load_array(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_array(tmp_path / "none.npy")
    with pytest.raises(DataError, match="is a folder"):
        load_array(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"3",
        b"null",
        b'{"a": \xff}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 6000 + b"}",
        b"{}}",
    ],
)
@pytest.mark.parametrize("kind", [DataError, RunError])
def test_damaged_json_is_one_line_of_the_callers_kind(tmp_path, content, kind):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(kind, match=r"a\.json") as error:
        read_json(tmp_path / "a.json", kind)
    assert "\n" not in str(error.value)


def test_json_survives_and_is_readable(tmp_path):
    value = {"name": "Zürich – 東京 😀", "list": [1, 2.5, None, True], "nested": {"a": "\u0000\n"}}
    write_json(tmp_path / "deep" / "a.json", value)
    assert read_json(tmp_path / "deep" / "a.json") == value
    assert "Zürich – 東京 😀" in (tmp_path / "deep" / "a.json").read_text("utf-8")


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert everything(tmp_path) == []


# ---------------------------------------------------------------- writing one file


def test_file_is_replaced_only_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and everything(tmp_path) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_failed_file_leaves_the_old_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and everything(tmp_path) == ["a.txt"]


# ---------------------------------------------------------------- the hash


def test_hash_ignores_padding_and_memory_order_but_nothing_else():
    base = {"a": np.arange(6).reshape(2, 3), "s": np.array(["x", "yy"])}
    same = {"s": np.array(["x", "yy"], dtype="<U40"), "a": np.asfortranarray(base["a"])}
    assert content_hash(base) == content_hash(same)
    others = [
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].astype(np.int32)},
        {**base, "a": base["a"][::-1]},
        {**base, "s": np.array(["xy", "y"])},
        {**base, "s": np.array(["x", "yy", ""])},
        {"b": base["a"], "s": base["s"]},
        {**base, "z": np.zeros(0)},
        {"s": base["s"]},
    ]
    hashes = [content_hash(other) for other in (base, *others)]
    assert len(set(hashes)) == len(hashes)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.text(alphabet="ab\x00,|é", max_size=4), min_size=1, max_size=4),
    st.lists(st.text(alphabet="ab\x00,|é", max_size=4), min_size=1, max_size=4),
)
def test_hash_of_texts_is_equal_only_for_equal_texts(one, two):
    one, two = np.array(one), np.array(two)
    assert (content_hash({"s": one}) == content_hash({"s": two})) == (one.tolist() == two.tolist())


def test_hash_reaches_past_the_block_size():
    many = np.array([str(number) for number in range(65536 + 3)])
    changed = many.copy()
    changed[-1] = "x"
    assert content_hash({"s": many}) != content_hash({"s": changed})
