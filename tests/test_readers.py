"""Logs, item tables and folders: every format read back against plain Python, real data counted,
bad input in one line.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualgnn_dgl.data.raw import RawLog
from dualgnn_dgl.errors import DataError
from dualgnn_dgl.preprocess import Options, prepare
from dualgnn_dgl.readers import heads, streams
from dualgnn_dgl.readers.columns import Columns
from dualgnn_dgl.readers.lists import position_within, tokens
from dualgnn_dgl.readers.logs import read_log
from dualgnn_dgl.readers.reader import read
from dualgnn_dgl.readers.values import unify

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(log: RawLog) -> list[tuple]:
    """The log as plain tuples (user, item, rating, time, split), those columns that it has."""
    columns = [log.user_ids[log.user].tolist(), log.item_ids[log.item].tolist()]
    columns += [
        column.tolist() for column in (log.rating, log.time, log.split) if column is not None
    ]
    assert log.user.dtype == log.item.dtype == np.int64
    assert log.rows_read == len(log.user) + sum(log.dropped.values())
    for codes, ids in ((log.user, log.user_ids), (log.item, log.item_ids)):
        assert ids.dtype.kind == "U" and len(set(ids.tolist())) == len(ids)
        # order of first appearance, and nothing that no row uses
        seen = list(dict.fromkeys(codes.tolist()))
        assert seen == list(range(len(ids)))
    return list(zip(*columns, strict=True))


# --- round trips --------------------------------------------------------------------------------

marks = st.characters(
    blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), blacklist_characters='"\ufeff'
)
identifiers = st.one_of(
    st.integers(0, 10**12).map(str),
    st.integers(0, 30).map(lambda n: f"{n:03d}"),
    st.text(marks, min_size=1, max_size=7),
).filter(lambda text: not text.replace(".", "").isdigit() or "." not in text)
logs = st.lists(
    st.tuples(
        identifiers,
        identifiers,
        st.sampled_from([0.5, 1.0, 4.5, 7.25]),
        st.integers(-(10**14), 10**17),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=23,
)
HEADER = ("user_id", "item_id", "rating", "timestamp", "x_label")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@settings(max_examples=40, deadline=None)
@given(log=logs)
def test_a_written_table_is_read_back(name: str, log: list[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if "tsv" in name else ",", lineterminator="\n")
    writer.writerows([HEADER, *log])
    data = text.getvalue().encode()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), name, gzip.compress(data) if name.endswith("gz") else data)
        assert rows(read(path).log) == log


@settings(max_examples=40, deadline=None)
@given(log=logs, categories=st.booleans())
def test_a_parquet_file_is_read_back(log: list[tuple], categories: bool) -> None:
    columns = {
        name: pa.array(values) for name, values in zip(HEADER, zip(*log, strict=True), strict=True)
    }
    if categories:
        columns["item_id"] = columns["item_id"].dictionary_encode()
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(columns), Path(folder) / "a.parquet", row_group_size=5)
        assert rows(read(Path(folder) / "a.parquet").log) == log


@settings(max_examples=40, deadline=None)
@given(log=logs)
def test_a_recbole_file_is_read_back(log: list[tuple]) -> None:
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    lines = "".join("\t".join(map(str, row[:4])) + "\n" for row in log)
    with tempfile.TemporaryDirectory() as folder:
        read_back = read(write(Path(folder), "a.inter", header + lines)).log
        assert (
            rows(read_back) == [row[:4] for row in log] and read_back.kind == "RecBole atomic file"
        )


lists = st.lists(
    st.tuples(st.integers(0, 40), st.lists(st.integers(0, 90).map(str), max_size=6)),
    min_size=1,
    max_size=17,
).filter(lambda lines: any(items for _, items in lines))


@settings(max_examples=60, deadline=None)
@given(lines=lists, end=st.sampled_from(["\n", "\r\n", " \n"]))
def test_adjacency_lists_equal_their_lines(lines: list[tuple[int, list[str]]], end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(
            Path(folder),
            "train.txt",
            "".join(" ".join([str(user), *items]) + end for user, items in lines),
        )
        write(Path(folder), "test.txt", f"5 7{end}")
        expected = [(str(user), item, 0) for user, items in lines for item in items] + [
            ("5", "7", 2)
        ]
        assert rows(read(folder).log) == expected
        assert rows(read(path).log) == [row[:2] for row in expected[:-1]]


@settings(max_examples=60, deadline=None)
@given(lines=lists)
def test_pairs_carry_their_order_as_time(lines: list[tuple[int, list[str]]]) -> None:
    lines = [(user, items) for user, items in lines if items]
    expected, seen = [], {}
    for user, items in lines:
        for item in items:
            expected.append((str(user), item, seen.get(user, 0)))
            seen[user] = seen.get(user, 0) + 1
    with tempfile.TemporaryDirectory() as folder:
        text = "".join(f"{user}\t{' '.join(items)}\r\n" for user, items in lines)
        log = read(write(Path(folder), "MicroLens_pairs.tsv", text)).log
        assert rows(log) == expected and log.kind == "MicroLens pairs"


@given(st.lists(st.integers(0, 5), max_size=30))
def test_position_within_counts_earlier_equals(codes: list[int]) -> None:
    assert position_within(np.array(codes, np.int64)).tolist() == [
        codes[:e].count(code) for e, code in enumerate(codes)
    ]


@given(st.text(st.sampled_from("ab7é \t\r\n"), max_size=60))
def test_tokens_equal_a_plain_split(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words, line = tokens(write(Path(folder), "x.txt", text))
    expected = [
        (number, word)
        for number, part in enumerate(text.encode().split(b"\n"))
        for word in part.decode().split()
    ]
    assert list(zip(line.tolist(), words.to_pylist(), strict=True)) == expected


@given(
    st.lists(
        st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=9),
        min_size=1,
        max_size=5,
    )
)
def test_unify_numbers_ids_by_first_appearance(parts: list[list[str]]) -> None:
    coded = [pa.array(part, pa.large_string()).dictionary_encode() for part in parts]
    codes, ids = unify([(part.indices.to_numpy(), part.dictionary) for part in coded])
    flat = [text for part in parts for text in part]
    assert ids[codes].tolist() == flat and ids.tolist() == list(dict.fromkeys(flat))


def test_many_batches_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    log = [
        (f"u{u}", f"{i}", float(r), int(t))
        for u, i, r, t in zip(*rng.integers(0, 97, (4, 1501)), strict=True)
    ]
    text = "uid,vid,score,ts\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in log)
    path = write(tmp_path, "log.csv", text)
    whole = rows(read(path).log)
    monkeypatch.setattr(streams, "BLOCK", 512)
    assert rows(read(path).log) == whole == log


# --- formats by example -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "ratings.dat",
            "1::1193::5::978300760\n2::7::4::978300761\n",
            [("1", "1193", 5, 978300760), ("2", "7", 4, 978300761)],
        ),
        ("u.data", "196\t242\t3\t881250949\n", [("196", "242", 3, 881250949)]),
        ("artists.dat", "userID\tartistID\n2\t51\n", [("2", "51")]),
        (
            "a.inter",
            "userID\titemID\tx_label\r\n0\t7\t0\r\n0\t8\t2\r\n",
            [("0", "7", 0), ("0", "8", 2)],
        ),
        ("a.csv", "Viewer;Video-ID\n1;2,5\n", [("1", "2,5")]),
        ("a.txt", "user item\n1 2\n", [("1", "2")]),
        ("a.csv", '\ufeffuser,item\n"a,b",2\n', [("a,b", "2")]),
        ("a.csv", 'user,item,note\n 007 ,08,"two\nlines"\n', [("007", "08")]),
        ("a.csv", "user,item\n1.0,3\n2.0,4.5\n", [("1", "3"), ("2", "4.5")]),
        (
            "a.csv",
            "user,item,split\n1,2,train\n1,3,Validation\n1,4,test\n",
            [("1", "2", 0), ("1", "3", 1), ("1", "4", 2)],
        ),
        (
            "a.csv",
            "user,item,time\n1,2,15.5\n1,3,7\n",
            [("1", "2", 15_500_000), ("1", "3", 7_000_000)],
        ),
        ("a.csv", "user,item,time\n1,2,15.0\n1,3,7\n", [("1", "2", 15), ("1", "3", 7)]),
        (
            "a.csv",
            "user,item,rating,ts,date\n1,2,1e1,1593898068123456789,x\n",
            [("1", "2", 10.0, 1593898068123456789)],
        ),
    ],
)
def test_formats(tmp_path: Path, name: str, text: str, expected: list[tuple]) -> None:
    assert rows(read(write(tmp_path, name, text)).log) == expected


def test_dates_are_microseconds_in_utc(tmp_path: Path) -> None:
    text = [
        "2020-01-02",
        "2020-01-02 03:04:05",
        "2020-01-02T03:04:05.25Z",
        "2020-01-02T03:04:05+01:00",
        "2020/01/03",
    ]
    moments = [datetime.datetime.fromisoformat(value.replace("/", "-")) for value in text]
    moments = [
        moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC) for moment in moments
    ]
    expected = [round(moment.timestamp() * 1e6) for moment in moments]
    bad = ["2020-13-02", "", "soon"]
    path = write(
        tmp_path,
        "a.csv",
        "user,item,date\n" + "".join(f"1,{n},{value}\n" for n, value in enumerate(bad + text)),
    )
    log = read(path).log
    assert log.time.tolist() == expected and log.dropped == {"time not readable": 3}
    # without the faults the fast reading is taken, and gives the same
    for zone in ("", "Z"):
        plain = [moment.strftime("%Y-%m-%dT%H:%M:%S") + zone for moment in moments]
        fast = read(
            write(
                tmp_path, "b.csv", "user,item,date\n" + "".join(f"1,2,{value}\n" for value in plain)
            )
        ).log.time
        assert fast.tolist() == [
            round(datetime.datetime.fromisoformat(v[:19] + "+00:00").timestamp() * 1e6)
            for v in plain
        ]
    pq.write_table(
        pa.table({"user": ["a", "a"], "item": [1, 2], "time": moments[1:3]}), tmp_path / "c.parquet"
    )
    assert read(tmp_path / "c.parquet").log.time.tolist() == [expected[1], expected[2]]


def test_parquet_ids_of_any_type(tmp_path: Path) -> None:
    def ids(column: pa.Array) -> list[str]:
        pq.write_table(
            pa.table({"user": column, "item": pa.array(range(len(column)))}), tmp_path / "a.parquet"
        )
        log = read(tmp_path / "a.parquet").log
        assert log.rows_read == len(column)
        return log.user_ids[log.user].tolist()

    assert ids(pa.array([3.0, None, 7.0])) == ["3", "7"]
    assert ids(pa.array([2**63 + 5], pa.uint64())) == [str(2**63 + 5)]
    assert ids(pa.array([b"x", b"y"])) == ["x", "y"]
    assert ids(pa.array(["a", None, "", " b "])) == ["a", "b"]
    for column, word in (
        (pa.array([2.5]), "2.5"),
        (pa.array([True]), "bool"),
        (pa.array([[1]]), "list"),
        (pa.array([b"\xff"]), "UTF-8"),
    ):
        with pytest.raises(DataError, match=f"a.parquet, column user.*{word}"):
            ids(column)


def test_unusable_rows_are_dropped_once_with_their_reason(tmp_path: Path) -> None:
    text = (
        "user,item,rating,time\n1,2,good,5\n1,3,4.5,6\n,4,,x\n2,2,1,x\n2, "
        ",1,1\n2,9,nan,4\n2,9,inf,4\n07,08,-1,4\n"
    )
    log = read(write(tmp_path, "a.csv", text)).log
    assert rows(log) == [("1", "3", 4.5, 6), ("07", "08", -1.0, 4)]
    assert log.dropped == {
        "user id empty": 1,
        "item id empty": 1,
        "rating not a number": 3,
        "time not readable": 1,
    }
    assert log.rows_read == 8


def test_named_columns_and_separator(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "user##uid##item##rating\n1##2##3##x\n")
    assert rows(read(path, separator="##", user_col="UID", rating_col="").log) == [("2", "3")]
    path = write(tmp_path, "b.csv", "a\tb\n1\t2\n")
    assert rows(read(path, separator=r"\t", user_col="b", item_col="a").log) == [("2", "1")]
    with pytest.raises(DataError, match="unknown column 'c'"):
        read(path, user_col="c")
    with pytest.raises(DataError, match="cannot be both user and item"):
        read(path, user_col="a", item_col="a")


def test_separators_cut_by_a_block_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [(f"{u}", f"{u % 7}:x", 3.0) for u in range(400)]
    path = write(tmp_path, "ratings.dat", "".join(f"{u}::{i}::{int(r)}\n" for u, i, r in expected))
    for block in (64, 65, 66, 67, 68, 69):
        monkeypatch.setattr(streams, "BLOCK", block)
        assert rows(read(path).log) == expected


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_with_everything(tmp_path: Path) -> None:
    write(tmp_path, "ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,9\n")
    write(tmp_path, "tags.csv", "userId,movieId,tag,timestamp\n1,31,x,9\n")
    write(tmp_path, "links.csv", "movieId,imdbId,tmdbId\n31,5,6\n")
    write(tmp_path, "movies.csv", 'movieId,title,genres\n31,"Dangerous, Minds",Drama\n32,,\n')
    write(tmp_path, "trailer.csv", "ML_Id,f1,f2\n31,1,2\n")
    write(tmp_path, "README.txt", "user item\n")
    write(tmp_path, "posters/ratings.csv", "not,read\n")
    np.save(tmp_path / "visual_feat.npy", np.ones((2, 3), np.float16))
    said: list[str] = []
    raw = read(tmp_path, progress=said.append)
    assert rows(raw.log) == [("1", "31", 2.5, 9)]
    assert raw.titles == {"31": "Dangerous, Minds"} and raw.name == tmp_path.name
    assert {name: m.ids.tolist() for name, m in raw.modalities.items()} == {
        "trailer": ["31"],
        "visual": ["31", "32"],
    }
    assert "not read: README.txt, links.csv, tags.csv" in said
    only = read(tmp_path, features=["trailer.csv"], items=tmp_path / "movies.csv")
    assert list(only.modalities) == ["trailer"]
    bare = read(tmp_path / "ratings.csv")
    assert bare.modalities == {} and bare.titles == {} and bare.name == "ratings"


def test_movielens_dat_in_latin_1(tmp_path: Path) -> None:
    write(tmp_path, "ratings.dat", "1::3::5::9\n")
    write(tmp_path, "movies.dat", "3::Misérables, Les: 1995::Drama\n".encode("latin-1"))
    write(tmp_path, "movies_extrainfos.dat", "3::a::b::c::d::e::f\n")
    assert read(tmp_path).titles == {"3": "Misérables, Les: 1995"}
    write(tmp_path, "movies.dat", "3::Misérables, Les: 1995::Drama\n")
    assert read(tmp_path).titles == {"3": "Misérables, Les: 1995"}


def test_recbole_folder_with_titles_and_split_files(tmp_path: Path) -> None:
    for name, item in (("train", 7), ("valid", 8), ("test", 9)):
        write(tmp_path, f"ml.{name}.inter", f"user_id:token\titem_id:token\nu\t{item}\n")
    write(
        tmp_path,
        "ml.item",
        'item_id:token\tmovie_title:token_seq\tclass:token_seq\n7\t"Great" Cats\tx\n9\tB\ty\n',
    )
    write(tmp_path, "ml.user", "user_id:token\nu\n")
    raw = read(tmp_path)
    assert rows(raw.log) == [("u", "7", 0), ("u", "8", 1), ("u", "9", 2)]
    assert raw.titles == {"7": '"Great" Cats', "9": "B"} and len(raw.log.files) == 3


def test_an_odd_name_is_found_by_its_header(tmp_path: Path) -> None:
    write(tmp_path, "mine.tsv", "who\twhat\n1\t2\n")
    write(tmp_path, "about.csv", "item,colour\n2,red\n")
    with pytest.raises(DataError, match="holds no log.*about.csv, mine.tsv.*--user-col"):
        read(tmp_path)
    assert rows(read(tmp_path, user_col="who", item_col="what").log) == [("1", "2")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.csv": "user,item\n1,2\n", "b.csv": "user,item\n1,2\n"},
            r"several logs \(a.csv, b.csv\): point --input",
        ),
        (
            {"a.inter": "userID\titemID\n1\t2\n", "ratings.csv": "user,item\n1,2\n"},
            r"several logs \(a.inter, ratings.csv\)",
        ),
        (
            {
                "ratings.csv": "user,item\n1,2\n",
                "movies.csv": "item,title\n2,x\n",
                "x_titles.csv": "item,title\n2,x\n",
            },
            r"several item tables \(movies.csv, x_titles.csv\): choose with --items",
        ),
        (
            {"ratings.csv": "a,b\n1,2\n"},
            "ratings.csv has the columns a, b; none is known to be the user: name it with "
            "--user-col",
        ),
        ({"notes.md": "hello"}, "holds no log of users and items"),
        ({"val.csv": "user,item\n1,2\n", "valid.csv": "user,item\n1,2\n"}, "holds one split twice"),
        (
            {"train.csv": "user,item\n1,2\n", "test.csv": "user,item,time\n1,2,3\n"},
            "test.csv has other columns than train.csv",
        ),
        ({"train.txt": "1 2\n", "test.txt": "user,item\n1,2\n"}, "give all splits in one format"),
        (
            {"ratings.csv": "user,item\n1,2\n", "movies.csv": "movieId,title\n1,a\n1,b\n"},
            "item '1' twice, in rows 1 and 2",
        ),
        (
            {"ratings.csv": "user,item\n1,2\n", "movies.csv": "movieId,title\n1,a\n,b\n"},
            "movies.csv, row 2, has no item id",
        ),
        (
            {"ratings.csv": "user,item\n1,2\n", "movies.csv": "movieId,title\nm1,a\n"},
            "no item with ratings.csv.*'m1'.*'2'",
        ),
        (
            {"ratings.csv": "user,item\n1,2\n", "movies.csv": "colour,title\nm1,a\n"},
            "movies.csv has the columns colour, title",
        ),
        (
            {
                "ratings.csv": "user,item\n1,2\n",
                "v.csv": "item,a\n2,1\n",
                "v_feat.csv": "item,a\n2,1\n",
            },
            "v.csv and v_feat.csv would both be the modality v",
        ),
    ],
)
def test_ambiguous_and_wrong_folders(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        write(tmp_path, name, text)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n \n", "is empty"),
        ("a.csv", "user,item\n", "holds no rows"),
        (
            "a.csv",
            "x,y\n1,2\n",
            "has the columns x, y; none is known to be the user: name it with --user-col",
        ),
        ("a.csv", "user,y\n1,2\n", "none is known to be the item: name it with --item-col"),
        ("a.csv", "1,2,5.0\n1,3,4.0\n", "its first line seems to be data: add a header"),
        (
            "a.csv",
            "user,uid,item\n1,2,3\n",
            r"2 columns that could be the user \(user, uid\): choose with --user-col",
        ),
        ("a.csv", "user,user,item\n1,2,3\n", "has the column user twice"),
        ("a.csv", b"user,item\n1,\x00\n", "NUL byte at position 12"),
        (
            "a.csv",
            b"user,item\n" + b"1,2\n" * 20000 + b"1,x\x00y\n",
            "column item, row 20001: an id holds a NUL",
        ),
        ("train.txt", b"1 2\n3 \x00\n", "NUL byte at position 6"),
        ("a.csv", "user,item\n1,2\n".encode("utf-16"), "UTF-16"),
        ("a.csv", b"user,item\n1,2\nJos\xe9,2\n", "line 3, is not text in UTF-8"),
        (
            "a.csv",
            b"user,item\n" + b"1,2\n" * 20000 + b"Jos\xe9,2\n",
            "line 20002, is not text in UTF-8",
        ),
        ("train.txt", b"1 Jos\xe9\n", "not text in UTF-8"),
        ("a.csv", b"PAR1xxx", "is a Parquet file by another name"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\x1f\x8b\xff", "not text in UTF-8"),
        ("a.parquet", "user,item\n1,2\n", "is not a Parquet file"),
        ("a.json", "{}", "suffix .json, which no reader knows"),
        ("a.csv.gz", gzip.compress(b"user,item\n" + b"1,2\n" * 999)[:-20], "damaged"),
        ("a.csv", "user,item\n1,2\n\n3,4,5\n", "line 4, has 3 fields, but the table has 2 columns"),
        ("a.csv", "user,item,rating\n1,2,3\n3,4\n", "line 3, has 2 fields"),
        ("ratings.dat", "1::2::3::4\n1::2::3\n", "line 2, has 3 fields"),
        (
            "a.csv",
            "user,item\n1,2\n1," + "x" * 300 + "\n",
            "column item, row 2: an id of 300 characters.*at most 256",
        ),
        ("a.csv", 'user,item\n1,2\n1,"3\n4,5\n', "row 2: an id holds a line break"),
        (
            "a.csv",
            'user,item,note\n1,2,x\n1,3,"y\n4,5,z\n',
            "line 3, opens a quotation mark that never closes",
        ),
        (
            "a.csv",
            "user,item,rating\n1,2,good\n",
            r"none of the 1 rows of a.csv is usable.*'good'.*--rating-col",
        ),
        ("a.csv", "user,item,time\n1,2,01/02/2020\n", "time holds '01/02/2020'.*--time-col"),
        ("a.csv", "user,item\n,2\n3,\n", "user id empty: 1, item id empty: 1"),
        (
            "a.csv",
            "user,item,split\n1,2,train\n1,3,7\n",
            "column split, row 2: the split '7' is not one of",
        ),
        ("train.txt", "1\n2\n", "train.txt holds no interactions"),
    ],
)
def test_bad_files_give_one_clear_line(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, name, text))
    assert (
        "\n" not in str(caught.value) and name in str(caught.value) and len(str(caught.value)) < 600
    )


COMMENTED = ["user,item,rating,note", *(f"u{n},v{n % 3},4,fine" for n in range(9))]


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_two_stray_marks_do_not_hide_the_rows_between_them(tmp_path: Path, gap: int) -> None:
    lines = list(COMMENTED)
    for n in (3, 3 + gap):
        lines[n] = lines[n].replace("fine", '"fine')
    with pytest.raises(
        DataError, match="a.csv, line 4, opens a quotation mark.*line 5 in between looks like a row"
    ):
        read(write(tmp_path, "a.csv", "\n".join(lines)))


def test_an_odd_number_of_marks_does_not_hide_a_row_either(tmp_path: Path) -> None:
    """Three marks, of which one stands in a column that is read; found by the mutation fuzzer."""
    lines = list(COMMENTED)
    lines[3], lines[4] = (
        lines[3].replace(",4,", ',"4"",'),
        lines[4].replace("fine", '"said ""no"", then left"'),
    )
    with pytest.raises(
        DataError, match="a.csv, line 4, opens a quotation mark.*line 5 in between looks like a row"
    ):
        read(write(tmp_path, "a.csv", "\n".join(lines)))


def test_text_of_several_lines_is_read_and_counted(tmp_path: Path) -> None:
    lines = list(COMMENTED)
    lines[2] = lines[2].replace("fine", '"well, it is\r\nfine, really, yes\n\n""so""\n"')
    lines[7] = lines[7].replace("fine", '"a\nb"')
    raw = read(write(tmp_path, "a.csv", "\n".join(lines) + "\n\n"))
    assert raw.log.rows_read == len(raw.log.user) == 9
    assert raw.log.notes == (
        "a.csv: 2 rows span several lines, the first from line 3 on: check the quotation marks "
        "there",
    )
    assert prepare(raw, Options(k_core=0)).report["warnings"][0] == raw.log.notes[0]


def test_quoted_fields_on_one_line_are_no_matter(tmp_path: Path) -> None:
    text = 'user,item,note\n"u1","v1","said ""no"", twice"\n\n"u2","v2",""\r\n'
    raw = read(write(tmp_path, "a.csv", text))
    assert raw.log.rows_read == 2 and raw.log.notes == ()


def test_stray_marks_do_not_hide_titles(tmp_path: Path) -> None:
    write(tmp_path, "items.csv", 'item,title,note\nv0,A,"x\nv1,B,x\nv2,C,"x\n')
    with pytest.raises(DataError, match="items.csv, line 2, opens a quotation mark"):
        read(write(tmp_path, "a.csv", "\n".join(COMMENTED)), items=tmp_path / "items.csv")


pieces = st.lists(
    st.sampled_from(
        [
            b"user",
            b"item",
            b"rating",
            b"time",
            b",",
            b"\t",
            b"::",
            b" ",
            b"\n",
            b"\r\n",
            b'"',
            b"1",
            b"2.5",
            b"\xe9",
            b"\0",
            b"a:token",
        ]
    )
    | st.binary(max_size=3),
    max_size=30,
).map(b"".join)


@pytest.mark.parametrize(
    "name",
    [
        "a.csv",
        "a.tsv",
        "a.inter",
        "ratings.dat",
        "x_pairs.tsv",
        "train.txt",
        "a.parquet",
        "a.csv.gz",
    ],
)
@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from([b"", b"user,item,rating,time\n", b"user\titem\n"]), data=pieces)
def test_no_file_ends_in_anything_but_a_log_or_one_line(
    name: str, start: bytes, data: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(
            Path(folder), name, gzip.compress(start + data) if name.endswith("gz") else start + data
        )
        for source in (path, Path(folder)):
            try:
                rows(read(source).log)
            except DataError as error:
                assert "\n" not in str(error)


def test_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.csv does not exist"):
        read(tmp_path / "nowhere.csv")
    path = write(tmp_path, "a.csv", "user,item\n1,2\n")
    with pytest.raises(DataError, match="no.npy does not exist"):
        read(path, features=["no.npy"])
    with pytest.raises(DataError, match="no.csv does not exist"):
        read(path, items="no.csv")
    with pytest.raises(DataError, match="--separator"):
        read(path, separator="")


def test_an_overlong_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 1 << 12)
    with pytest.raises(DataError, match="a line longer than"):
        read(write(tmp_path, "a.csv", "user,item\n1,2\n1," + "x" * 20000 + "\n"))


@pytest.mark.parametrize("start", ["\n", " \n\t\r\n", "\r\r", "\ufeff\n", "\n" * 9_999])
def test_blank_lines_before_the_header_do_not_make_it_a_row(tmp_path: Path, start: str) -> None:
    for name, text in (
        ("a.csv", "user,item\n1,2"),
        ("b.tsv", "user\titem\n1\t2\n"),
        ("c.csv.gz", "user,item\n1,2\n"),
    ):
        data = (start + text).encode()
        assert rows(
            read(write(tmp_path, name, gzip.compress(data) if "gz" in name else data)).log
        ) == [("1", "2")]
    log = write(tmp_path, "ratings.dat", f"{start}1::2::3\n4::5::6\n")
    assert rows(read(log).log) == [("1", "2", 3.0), ("4", "5", 6.0)]
    for name, text in (
        ("x.csv", "item,title\n2,Two\n"),
        ("x.txt", "item_id\n2\n"),
        ("y.txt", "2\n"),
    ):
        items = write(tmp_path, name, start + text)
        assert read(tmp_path / "a.csv", items=items).titles in ({"2": "Two"}, {})
    write(tmp_path, "visual.csv", f"{start}item,f0\n2,0.5\n")
    assert read(tmp_path / "a.csv", features=[tmp_path / "visual.csv"]).modalities[
        "visual"
    ].ids.tolist() == ["2"]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize(
    "name", ["log.csv", "log.tsv", "log.csv.gz", "my.inter", "train.txt", "my_pairs.tsv"]
)
def test_a_first_line_longer_than_the_head_is_read(tmp_path: Path, name: str, ending: str) -> None:
    """It was cut after 64 kB, and the rest of it refused for a reason that was not true."""
    mark, many = "\t" if name.endswith(("tsv", "inter")) else ",", 20_000
    if name in ("train.txt", "my_pairs.tsv"):
        separator = "\t" if name == "my_pairs.tsv" else " "
        lines = [
            f"{u}{separator}" + " ".join(f"v{i:07}" for i in range(many // (9 * u + 1)))
            for u in range(3)
        ]
        expected = sum(many // (9 * u + 1) for u in range(3))
    else:
        more = [f"column{c:05}" for c in range(many)]
        header = mark.join(["user_id", *more, "item_id"])
        lines, expected = (
            [header, *(mark.join([f"u{u}", *["7"] * many, f"v{u % 2}"]) for u in range(3))],
            3,
        )
    data = (ending.join(lines) + ending).encode()
    assert len(lines[0]) > 1 << 16
    path = write(tmp_path, name, gzip.compress(data) if name.endswith("gz") else data)
    assert read(path).log.rows_read == expected


def test_a_wide_feature_table_and_a_wide_item_table_are_read(tmp_path: Path) -> None:
    log = write(tmp_path, "log.csv", "user,item\nu,v1\nu,v2\n")
    width = 20_000
    rows = "".join(f"v{n}," + ",".join([f"{n}.5"] * width) + "\n" for n in (1, 2))
    write(
        tmp_path, "visual.csv", "item_id," + ",".join(f"f{c}" for c in range(width)) + "\n" + rows
    )
    tags = ",".join(f"tag{c}" for c in range(width))
    write(
        tmp_path, "items.csv", f"item_id,{tags},title\nv1{',x' * width},One\nv2{',' * width},Two\n"
    )
    for source, more in (
        (log, {"features": [tmp_path / "visual.csv"], "items": tmp_path / "items.csv"}),
        (tmp_path, {}),
    ):
        raw = read(source, **more)
        assert raw.modalities["visual"].values.tolist() == [[1.5] * width, [2.5] * width]
        assert raw.titles == {"v1": "One", "v2": "Two"}


def test_a_first_line_without_end_is_refused_for_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK", 1 << 18)
    monkeypatch.setattr(heads, "HEAD", 1 << 12)
    for name, data in (
        ("a.csv", b"user,item" * 99_999),
        ("b.csv", b"\n \r\n" + b"user,item," * 99_999 + b"x\n1,2\n"),
    ):
        with pytest.raises(DataError, match=f"{name} has a first line longer than .* MB"):
            read(write(tmp_path, name, data))
    with pytest.raises(DataError, match="none is known to be the user") as caught:
        read(write(tmp_path, "c.csv", b"x" * 200_000 + b"\n1\n"))
    assert len(str(caught.value)) < 300


def test_a_mark_inside_a_field_is_no_quotation(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'user,item,size\n1,2,5" disk\n3,4,x\n')
    assert rows(read(path).log) == [("1", "2"), ("3", "4")]


# --- real data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "users", "items", "split", "widths", "titles"),
    [
        ("tiktok", 9308, 6710, (59541, 3051, 6130), {"image": 128, "audio": 128}, 0),
        ("amazon-baby", 19445, 7050, (118551, 20559, 21682), {}, 0),
        ("gowalla", 29858, 40981, (810128, 0, 217242), {}, 0),
        ("amazon-book", 70679, 24915, (652514, 0, 193920), {}, 0),
        ("microlens-50k", 50000, 19220, 359708, {"title_minilm": 384}, 19220),
        (
            "movielens-1m",
            6040,
            3706,
            1000209,
            {"poster_effnetlite0": 1280, "text_minilm": 384, "trailer_visual": 7},
            3883,
        ),
        ("movielens-latest-small", 671, 9066, 100004, {}, 9125),
    ],
)
def test_real_data(
    folder: str,
    users: int,
    items: int,
    split: tuple[int, int, int] | int,
    widths: dict,
    titles: int,
) -> None:
    if not (REAL / folder).is_dir():
        pytest.skip(f"{folder} is not at hand")
    raw = read(REAL / folder)
    assert (len(raw.log.user_ids), len(raw.log.item_ids)) == (users, items)
    assert raw.log.dropped == {}
    if isinstance(split, tuple):
        assert np.bincount(raw.log.split, minlength=3).tolist() == list(split)
    else:
        assert raw.log.split is None and len(raw.log.user) == split
    assert {name: modality.values.shape[1] for name, modality in raw.modalities.items()} == widths
    assert all(modality.values.dtype == np.float32 for modality in raw.modalities.values())
    assert len(raw.titles) == titles
    assert (raw.log.time is not None) == (folder in ("microlens-50k", "movielens-latest-small"))


def test_real_toy_needs_its_features_named() -> None:
    if not (REAL / "tiktok-toy").is_dir():
        pytest.skip("tiktok-toy is not at hand")
    with pytest.raises(
        DataError,
        match="text_word_ids.npy has 2 rows but the items of tiktok.inter are numbered up to 1650",
    ):
        read(REAL / "tiktok-toy")
    raw = read(REAL / "tiktok-toy", features=["visual.npy", "acoustic.npy"])
    assert (len(raw.log.user_ids), len(raw.log.item_ids)) == (100, 1651)
    assert np.bincount(raw.log.split).tolist() == [1707, 212, 170] and list(raw.modalities) == [
        "visual",
        "acoustic",
    ]


def test_columns_are_the_defaults_of_read_log(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "user,item\n1,2\n")
    assert (
        rows(read_log([(path, None)])) == rows(read_log([(path, None)], Columns())) == [("1", "2")]
    )
