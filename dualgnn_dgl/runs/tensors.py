"""Writes and reads safetensors files, with the SHA-256 that the format itself lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dualgnn_dgl.core.inputs import open_regular
from dualgnn_dgl.errors import RunError


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes a safetensors file and returns its SHA-256.

    The bytes are written here and not by safetensors, so that a full disk is an OSError.
    """
    content = save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file, on the CPU.

    Raises:
        RunError: if the file is missing or damaged, or is not the one with the given `sha256`; the
            message names it in one line.
    """
    # An earlier checkpoint may replace a damaged one, so only a run has to be trained again.
    remedy = ": train again" if sha256 is None else ""
    try:
        with open_regular(path, RunError) as handle:
            content = handle.read()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise RunError(f"{path} is not what was written there (cut short or altered)")
        return load(content)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist{remedy}") from None
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} is damaged ({str(error).splitlines()[0][:120]}){remedy}") from None


def flat(tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts sparse tables to three dense tensors each, which safetensors can hold."""
    flat: dict[str, Tensor] = {}
    for name, table in tables.items():
        if table.is_sparse:
            table = table.coalesce()
            flat |= {
                f"{name}.index": table.indices(),
                f"{name}.value": table.values(),
                f"{name}.size": torch.tensor(table.shape),
            }
        else:
            flat[name] = table
    return flat


def unflat(tensors: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Restores a table of `flat`; None where it is missing or its parts do not fit together."""
    if f"{name}.index" not in tensors:
        return tensors.get(name)
    try:
        index, value, size = (tensors[f"{name}.{part}"] for part in ("index", "value", "size"))
        return torch.sparse_coo_tensor(
            index, value, size.tolist(), check_invariants=True
        ).coalesce()
    except (KeyError, RuntimeError, TypeError, ValueError):
        # torch raises any of these for an entry outside the size.
        return None
