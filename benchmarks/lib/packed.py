"""Trainings of one table, kept as one Parquet file with a row per training.

A training is a dict: the input (`data`, `model`, `config`, `seed`, `train`), the results, and for a
test the hits of every test user. Columns have the types of `SCHEMA`; dicts whose keys depend on the
model or the machine are JSON text. A field without a column is an error, so nothing is lost in
packing.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Training = dict

AS_JSON = ("config", "train", "resolved", "machine")
AS_PAIRS = ("test", "intervals")  # metric → value, metric → both ends
# Null in a row that used validation only.
FOR_TESTS = ("intervals", "users", "hits", "held_out")
SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("data", pa.string()),
        ("model", pa.string()),
        ("config", pa.string()),
        ("seed", pa.int32()),
        ("train", pa.string()),
        ("test", pa.map_(pa.string(), pa.float64())),
        ("valid", pa.float64()),
        ("best_epoch", pa.int32()),
        ("epochs", pa.int32()),
        ("setup_s", pa.float64()),
        ("epoch_s", pa.float64()),
        ("to_best_s", pa.float64()),
        ("curve", pa.list_(pa.float64())),
        ("resolved", pa.string()),
        ("device", pa.string()),
        ("intervals", pa.map_(pa.string(), pa.list_(pa.float64()))),
        ("users", pa.int32()),
        ("peak_mb", pa.int32()),
        ("machine", pa.string()),
        ("hits", pa.list_(pa.int32())),
        ("held_out", pa.list_(pa.int32())),
    ]
)
# A user's hits are bits in the low bytes. Splitting the four bytes of all users into streams
# compresses a quarter better than a dictionary.
ENCODING = {
    "compression": "zstd",
    "compression_level": 19,
    "use_dictionary": [
        *AS_JSON,
        "data",
        "model",
        "device",
        "held_out.list.element",
        "test.key_value.key",
    ],
    "column_encoding": {"hits.list.element": "BYTE_STREAM_SPLIT"},
}


class Packed:
    """Trainings of a Parquet file, by name."""

    def __init__(self, table: pa.Table | None = None) -> None:
        self.table = SCHEMA.empty_table() if table is None else table
        self.place = {name: row for row, name in enumerate(self.table["name"].to_pylist())}

    @classmethod
    def read(cls, file: Path) -> Packed:
        """Reads a file; a missing one holds no training."""
        if not file.is_file():
            return cls()
        with file.open("rb") as handle:
            return cls(pq.read_table(handle).cast(SCHEMA))

    def write(self, file: Path) -> None:
        """Writes the trainings in the order of their names, atomically."""
        from dualgnn_dgl.core.files import atomic_file

        with atomic_file(file) as temporary:
            pq.write_table(self.table.sort_by("name"), temporary, **ENCODING)

    def __len__(self) -> int:
        return len(self.place)

    def __contains__(self, name: str) -> bool:
        return name in self.place

    def __iter__(self):
        return iter(sorted(self.place))

    def __getitem__(self, name: str) -> Training:
        """Returns a training with the fields that were packed."""
        found = {}
        for field in SCHEMA.names[1:]:
            value = self.table[field][self.place[name]]
            if value.is_valid or field not in FOR_TESTS:
                found[field] = _unpacked(field, value)
        return found

    def column(self, field: str) -> dict[str, object]:
        """Returns one field of every training, by name."""
        return {
            name: _unpacked(field, self.table[field][row])
            for name, row in sorted(self.place.items())
        }

    def with_trainings(self, trainings: dict[str, Training]) -> Packed:
        """Returns these trainings with those of `trainings` added.

        An added training replaces one of the same name.
        """
        if not trainings:
            return self
        kept = self.table.filter(
            pc.invert(pc.is_in(self.table["name"], pa.array(list(trainings), pa.string())))
        )
        rows = [_packed(name, training) for name, training in trainings.items()]
        return Packed(pa.concat_tables([kept, pa.Table.from_pylist(rows, SCHEMA)]))


def _packed(name: str, training: Training) -> dict[str, object]:
    """Returns a row of `SCHEMA`."""
    if strange := set(training) - set(SCHEMA.names[1:]):
        raise SystemExit(
            f"training {name} has fields without a column: add {', '.join(sorted(strange))} to "
            f"SCHEMA in packed.py"
        )
    row: dict[str, object] = {"name": name}
    for field in SCHEMA.names[1:]:
        value = training.get(field)
        if field in AS_JSON:
            value = json.dumps(value)
        elif field in AS_PAIRS:
            value = list(value.items()) if value else None
        row[field] = value
    return row


def _unpacked(field: str, value: pa.Scalar) -> object:
    if field in AS_JSON:
        return json.loads(value.as_py())
    if field in AS_PAIRS:
        return dict(value.as_py()) if value.is_valid else False
    if field in ("hits", "held_out"):
        return value.values.to_numpy() if value.is_valid else np.empty(0, np.int32)
    return value.as_py()
