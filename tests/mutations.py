"""Damages files: bytes, lines, cells of tables, JSON, TOML, arrays and Parquet."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOKENS = [
    *(
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"|",
        b"::",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b" ",
        b"",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
    ),
    *(
        b"nan",
        b"NaN",
        b"inf",
        b"-inf",
        b"null",
        b"None",
        b"NA",
        b"1e400",
        b"-1",
        b"0",
        b"-0",
        b"1e18",
        b"18446744073709551616",
    ),
    *(
        b"9223372036854775807",
        b"-9223372036854775809",
        b"0x10",
        b"1_000",
        b"1.5",
        b"3,5",
        b"2021-02-30",
        b"2021-01-01T00:00:00Z",
    ),
    *(
        b"true",
        b"user_id",
        b"item_id",
        b"x" * 300,
        b"\x1f",
        b"\x1b[31m",
        "ü💥".encode(),
        "\u202e".encode(),
        b"../../etc",
        b"=1+1",
    ),
    *(
        b"PAR1",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"\x80\x04.",
        b"[",
        b"{",
        b"]",
        b"#",
        b"\\",
        b'""',
        b'"\n"',
        b'","',
    ),
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**53,
        2**63,
        2**64,
        10**30,
        1.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *(
        "",
        "nan",
        "x" * 300,
        "../../x",
        "/",
        "\0",
        "\n",
        "\x1b[2J",
        "ü💥",
        "train",
        "user",
        "9" * 40,
        "1e5",
        [],
        {},
        [[]],
        [1, "a"],
        {"a": 1},
    ),
]


def spoil_bytes(data: bytes, draw: random.Random) -> bytes:
    """Flips, cuts, repeats, inserts or overwrites a few bytes."""
    spoilt = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        size = len(spoilt)
        at, length = draw.randrange(size + 1), draw.choice((1, 1, 2, 4, 16, 64))
        kind = draw.randrange(6)
        if kind == 0 and size:
            spoilt[at % size] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del spoilt[at : at + length]
        elif kind == 2:
            spoilt[at:at] = spoilt[at : at + length]
        elif kind == 3:
            spoilt[at:at] = draw.choice(TOKENS)
        elif kind == 4:
            spoilt[at : at + length] = draw.randbytes(length)
        else:
            del spoilt[at:]
    return bytes(spoilt)


def spoil_lines(data: bytes, draw: random.Random) -> bytes:
    """Moves, repeats, drops, blanks or joins lines, or changes line ends or encoding."""
    lines = data.split(b"\n")
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(10)
    if kind == 0:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 1:
        lines.insert(other, lines[at])
    elif kind == 2:
        del lines[at]
    elif kind == 3:
        lines.insert(at, draw.choice((b"", b"  ", b",", b",,,", b"\t\t\t", b"#", b'""')))
    elif kind == 4 and at + 1 < len(lines):
        lines[at : at + 2] = [lines[at] + lines[at + 1]]
    elif kind == 5:
        return draw.choice((b"\r", b"\r\n", b"\n\n", b"\n\r", b"\x0b", b"\xe2\x80\xa8")).join(lines)
    elif kind == 6:
        text = data.decode("utf-8", "replace")
        return text.encode(
            draw.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1", "utf-7")), "replace"
        )
    elif kind == 7:
        lines = lines[:1] + lines[:0:-1]
    elif kind == 8:
        return b"\n".join(lines[: draw.choice((0, 1, 2))])
    else:
        return gzip.compress(data)[: draw.choice((5, 20, 10**6))]
    return b"\n".join(lines)


def spoil_cells(data: bytes, draw: random.Random) -> bytes:
    """Replaces, empties, doubles or quotes a few fields of a text table."""
    lines = data.split(b"\n")
    first = lines[0] or b","
    mark = next((mark for mark in (b"::", b"\t", b";", b",", b" ") if mark in first), b",")
    for _ in range(draw.choice((1, 1, 2, 5))):
        row = draw.randrange(len(lines))
        cells = lines[row].split(mark)
        at, kind = draw.randrange(len(cells)), draw.randrange(7)
        if kind <= 1:
            cells[at] = draw.choice(TOKENS)
        elif kind == 2:
            cells[at] += draw.choice(TOKENS)
        elif kind == 3:
            cells.insert(at, draw.choice(TOKENS))
        elif kind == 4:
            del cells[at]
        elif kind == 5:
            cells[at] = b'"' + cells[at] + draw.choice((b'"', b"", b'"x', b'""'))
        else:
            for line in range(1, len(lines)):  # a whole column
                parts = lines[line].split(mark)
                if at < len(parts):
                    parts[at] = draw.choice((b"", b"7", b"nan", b"2021-03-04", parts[at] + b".0"))
                    lines[line] = mark.join(parts)
            continue
        lines[row] = mark.join(cells)
    return b"\n".join(lines)


def spoil_json(data: bytes, draw: random.Random) -> bytes:
    """Exchanges, drops or adds a value anywhere in a JSON object."""
    try:
        value = json.loads(data)
    except ValueError:
        return spoil_bytes(data, draw)
    for _ in range(draw.choice((1, 1, 2))):
        node: Any = value
        while isinstance(node, dict | list) and len(node):
            key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
            if not isinstance(node[key], dict | list) or draw.random() < 0.4:
                kind = draw.randrange(4)
                if kind == 0:
                    del node[key]
                elif kind == 1 and isinstance(node, dict):
                    node[draw.choice(("x", "../y", "", "users", "format"))] = draw.choice(VALUES)
                else:
                    node[key] = draw.choice(VALUES)
                break
            node = node[key]
    return json.dumps(value).encode()


def spoil_toml(data: bytes, draw: random.Random) -> bytes:
    """Changes a value, key or section in a TOML file."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = draw.randrange(len(lines))
    key = lines[at].split("=")[0].strip() or "x"
    literals = (
        "0",
        "-1",
        "1.5",
        "true",
        '"a"',
        "nan",
        "inf",
        "[]",
        "{}",
        "9" * 30,
        "2021-01-01",
        '"""',
        "'\\x'",
        "1e999",
        '"\\u0000"',
        "0x7f",
    )
    lines[at] = draw.choice(
        (
            f"{key} = {draw.choice(literals)}",
            f"{key}",
            f"[{key}]",
            f"[[{key}]]",
            f"{key}.{key} = 1",
            f"x{key} = 1",
            "",
        )
    )
    return "\n".join(lines).encode()


def spoil_array(data: bytes, draw: random.Random) -> bytes:
    """Changes header, type, shape or content of a .npy file."""
    kind = draw.randrange(4)
    if kind == 0:
        return spoil_bytes(data, draw)
    if kind == 1:
        header = draw.choice(
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (14, 4000000000000), }",
                "{'descr': '|O', 'fortran_order': False, 'shape': (14, 4), }",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
                "{'descr': '<f4', 'fortran_order': True, 'shape': (14, 4), }",
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (14,), }",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4), }",
                "{'descr': '<f4', 'fortran_order': False}",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (14, 4.0), }",
                "__import__('os').getcwd()",
                "(" * 4000,
                "{'descr': 'V16', 'fortran_order': False, 'shape': (14,), }",
            )
        ).encode()
        version = draw.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
        length = struct.pack("<H" if version[0] == 1 else "<I", len(header))
        return b"\x93NUMPY" + version + length + header + data[128:]
    try:
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:
        return spoil_bytes(data, draw)  # spoilt before
    changes: tuple[Callable[[], np.ndarray], ...] = (
        lambda: array.astype(
            draw.choice(("f2", "f8", ">f4", "i8", "u1", "c8", "?", "U3", "S2", "M8[s]", "m8[s]"))
        ),
        lambda: array.reshape(-1),
        lambda: array[None],
        lambda: array[: draw.choice((0, 1, 2))],
        lambda: array[:, :0] if array.ndim == 2 else array[:0],
        lambda: np.asfortranarray(array),
        lambda: np.concatenate([array, array]),
        lambda: array[::-1],
        lambda: np.where(
            np.arange(array.size).reshape(array.shape) == draw.randrange(max(array.size, 1)),
            draw.choice((np.nan, np.inf, 1e39, -1)),
            array,
        ),
    )
    buffer = io.BytesIO()
    with np.errstate(all="ignore"):
        try:
            np.save(buffer, draw.choice(changes)(), allow_pickle=False)
        except (TypeError, ValueError):
            return spoil_bytes(data, draw)  # of a type that it cannot be changed to
    return buffer.getvalue()


def spoil_parquet(data: bytes, draw: random.Random) -> bytes:
    """Changes columns of a Parquet file (type, name, order, number, content), or bytes."""
    if draw.random() < 0.35:
        return spoil_bytes(data, draw)
    table = pq.read_table(io.BytesIO(data))
    at = draw.randrange(table.num_columns)
    name, size = table.column_names[at], table.num_rows
    column = draw.choice(
        (
            lambda: pa.nulls(size),
            lambda: pa.array(
                [
                    draw.choice((None, 1.5, float("nan"), float("inf"), 2.0**60, -1.0))
                    for _ in range(size)
                ]
            ),
            lambda: pa.array(
                [
                    draw.choice(
                        ("", " ", "a", "a\nb", "a\0b", "x" * 300, "7", "nan", "2020-01-01", None)
                    )
                    for _ in range(size)
                ],
                pa.string(),
            ),
            lambda: pa.array(
                [draw.choice((b"", b"\xff\xfe", b"a", None)) for _ in range(size)], pa.binary()
            ),
            lambda: pa.array(
                [draw.choice(([], None, [1.0], [1.0, 2.0], [float("nan")])) for _ in range(size)],
                pa.list_(pa.float64()),
            ),
            lambda: pa.array([{"a": 1}] * size),
            lambda: pa.array([True] * size),
            lambda: pa.array(list(range(size)), pa.timestamp("ns")),
            lambda: pa.array(list(range(size)), pa.date32()),
            lambda: pa.array([n % 3 for n in range(size)], pa.int32()).dictionary_encode(),
            lambda: pa.array(
                [draw.choice((0, 2**63, 2**64 - 1)) for _ in range(size)], pa.uint64()
            ),
            lambda: pa.array(
                [draw.choice((-(2**63), -1, 2**63 - 1, None)) for _ in range(size)], pa.int64()
            ),
            lambda: pa.array(["x"] * size, pa.large_string()),
            lambda: pa.array([n / 2 for n in range(size)], pa.float16()),
        )
    )
    kind = draw.randrange(8)
    if kind <= 3:
        table = table.set_column(at, name, column())
    elif kind == 4:
        table = table.drop_columns([name]) if table.num_columns > 1 else table.slice(0, 0)
    elif kind == 5:
        table = table.rename_columns(
            [
                *table.column_names[:at],
                draw.choice(("", "user", "item", "x_label", "time", "é\n", "a" * 300)),
                *table.column_names[at + 1 :],
            ]
        )
    elif kind == 6:
        table = table.append_column(
            draw.choice((name, "user", "rating", "split", "extra")), column()
        )
    else:
        table = draw.choice(
            (table.slice(0, 0), table.slice(0, 1), pa.concat_tables([table, table]))
        )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def spoil_tensors(data: bytes, draw: random.Random) -> bytes:
    """Changes the header of a safetensors file, its length kept right or not, or its bytes."""
    if draw.random() < 0.4 or len(data) < 9:
        return spoil_bytes(data, draw)
    length = struct.unpack("<Q", data[:8])[0]
    header = spoil_json(data[8 : 8 + length], draw)
    return (
        struct.pack("<Q", draw.choice((len(header), len(header), len(header) + 1, 2**40)))
        + header
        + data[8 + length :]
    )


def spoil(name: str, data: bytes, draw: random.Random) -> bytes:
    """Returns a damaged version of a file, by its suffix."""
    if draw.random() < 0.02:
        return draw.choice((b"", b"\n", b"\0" * 40, draw.randbytes(200)))
    kind = re.sub(r"\.gz$", "", name).rsplit(".", 1)[-1]
    special = {
        "json": spoil_json,
        "toml": spoil_toml,
        "npy": spoil_array,
        "parquet": spoil_parquet,
        "safetensors": spoil_tensors,
    }
    if kind in special:
        return special[kind](data, draw) if draw.random() < 0.8 else spoil_bytes(data, draw)
    return draw.choice((spoil_bytes, spoil_lines, spoil_cells, spoil_cells))(data, draw)
