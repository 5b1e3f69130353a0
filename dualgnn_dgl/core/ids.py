"""Looks up the user's own ids; an unknown one is reported with the ids it resembles."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from dualgnn_dgl.errors import DataError, clean


class Ids:
    """Index from ids to their places.

    Args:
        ids: Distinct ids, (n,) text.
        kind: The kind of object, for messages: 'user' or 'micro-video'.
        where: The source of the ids, for messages: the data folder.
    """

    def __init__(self, ids: np.ndarray, kind: str, where: str) -> None:
        self.ids, self.kind, self.where = ids, kind, where
        self._place = {name: place for place, name in enumerate(ids.tolist())}

    def places(self, names: Sequence[str], *, skip: bool = False) -> np.ndarray:
        """Returns the places of the names, (m,) int64, in the order of the names.

        Args:
            names: Ids to look up.
            skip: Leave out unknown names instead of refusing them.

        Raises:
            DataError: For an unknown name, with the nearest ids.

        >>> known = Ids(np.array(["v1", "v2"]), "micro-video", "data")
        >>> known.places(["v2", "v9"], skip=True).tolist()
        [1]
        """
        found = [self._place.get(str(name), -1) for name in names]
        for name, place in zip(names, found, strict=True):
            if place < 0 and not skip:
                raise DataError(
                    f"unknown {self.kind} '{clean(name)}' in {self.where}; {self._hint(str(name))}"
                )
        return np.array([place for place in found if place >= 0], dtype=np.int64)

    def _hint(self, name: str) -> str:
        if not len(self.ids):
            return "it holds none"
        close = [f"'{clean(other)}'" for other in nearest(self.ids, name)]
        return (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"ids there look like '{clean(self.ids[0])}'"
        )


def nearest(ids: np.ndarray, name: str, candidates: int = 200) -> list[str]:
    """Returns up to three ids that look like `name`.

    difflib is slow, so it compares only a bounded number of ids: those that agree with `name` in
    most places, counted from the left and from the right. With one letter too many or too few, all
    places before it and all places after it still agree.

    Args:
        ids: Ids to choose from, (n,) text.
        name: The unknown name.
        candidates: Number of ids that difflib compares.

    >>> nearest(np.array(["u1", "u22", "video"]), "u2")
    ['u22', 'u1']
    """
    if not name or not len(ids):
        return []
    ids = np.ascontiguousarray(ids, dtype=np.str_)
    letters = ids.view(np.uint32).reshape(len(ids), -1)  # (U, width) code points, 0 beyond the end
    length = np.char.str_len(ids)  # (U,)
    agree = np.zeros(len(ids), dtype=np.int64)
    for place in range(min(letters.shape[1], len(name))):
        agree += letters[:, place] == ord(name[place])
        agree += (letters[np.arange(len(ids)), length - 1 - place] == ord(name[-1 - place])) & (
            length > place
        )
    best = ids[np.argsort(-agree, kind="stable")[:candidates]].tolist()
    return difflib.get_close_matches(name, best, n=3, cutoff=0.5)
