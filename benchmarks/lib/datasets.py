"""Data sets of the comparison: their splits, and results that others published on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """One data set of the comparison.

    Attributes:
        source: Name in prepared.py.
        split: Split of the prepared data.
        mask: Pairs left out of the ranking at test: `all` (training and validation) or `train`.
    """

    source: str
    split: str
    mask: str = "all"

    @property
    def masked(self) -> str:
        """Returns the masked pairs for a caption."""
        return "training pairs" if self.mask == "train" else "training and validation pairs"


# A sample (15k, 800) is for searching: its settings are used for the whole set, too.
DATA = {
    "tiktok": DataSet("tiktok", "given"),
    "baby": DataSet("baby", "given", "train"),
    "microlens-loo": DataSet("microlens", "leave-one-out"),
    "microlens-time": DataSet("microlens", "time-user"),
    "microlens-random": DataSet("microlens", "random"),
    "microlens-15k-loo": DataSet("microlens-15k", "leave-one-out"),
    "microlens-15k-time": DataSet("microlens-15k", "time-user"),
    "microlens-15k-random": DataSet("microlens-15k", "random"),
    "movielens-1m": DataSet("movielens-1m", "random"),
    "movielens-800": DataSet("movielens-800", "random"),
}

# Published recall@20 and NDCG@20 on the same files, by our names. The protocols differ, see NOTES.
PUBLISHED = {
    "tiktok": {
        "bprmf": (0.0346, 0.0130), "lightgcn": (0.0653, 0.0282),
        "vbpr": (0.0380, 0.0134), "mmgcn": (0.0730, 0.0307),
        "grcn": (0.0804, 0.0350), "bm3": (0.0957, 0.0404),
    },
    "baby": {
        "bprmf": (0.0575, 0.0249), "lightgcn": (0.0754, 0.0328),
        "vbpr": (0.0663, 0.0284), "mmgcn": (0.0615, 0.0261),
        "grcn": (0.0833, 0.0363), "dualgnn": (0.0716, 0.0309),
        "bm3": (0.0883, 0.0383), "freedom": (0.0992, 0.0424),
        "mgcn": (0.0964, 0.0427),
    },
}  # fmt: skip
NOTES = {
    "tiktok": "Published: the READMEs of MMSSL and DiffMM, same interactions and split, with text "
    "features that cannot be had "
    "(ours are image and audio); their best is DiffMM, 0.1129 / 0.0456. No DualGNN, FREEDOM or "
    "MGCN row is published.",
    "baby": "Published: MMRec's evaluation table (MGCN: its own repository), same split, only "
    "training pairs masked; models that "
    "read features had images and text, ours have none on this set.",
}
