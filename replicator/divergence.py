"""Compares the state hashes of primary and standby at the hash marks of the log (S4).

A key names a mark and a part of the state: mark << 16 | instrument, or | 0 for the accounts. The accounts' hash stands
in the log itself, so a follower compares that one as it applies the mark; books report theirs.
"""

from __future__ import annotations

KEYS_KEPT = 8192
PART_BITS = 16


def hash_key(mark: int, part: int) -> int:
    """Return the key of a part of the state at a mark."""
    return mark << PART_BITS | part


class HashLedger:
    """Hashes of one state by key, as both nodes report them, in whichever order they come."""

    def __init__(self) -> None:
        self._own: dict[int, int] = {}
        self._peer: dict[int, int] = {}
        self.compared = 0
        self.last_equal = 0  # newest key at which both were the same

    def own(self, key: int, value: int) -> int | None:
        """Note our hash; return the key if the peer's is known and differs."""
        return self._note(self._own, self._peer, key, value)

    def peer(self, key: int, value: int) -> int | None:
        """Note the peer's hash; return the key if ours is known and differs."""
        return self._note(self._peer, self._own, key, value)

    def _note(self, mine: dict[int, int], other: dict[int, int], key: int, value: int) -> int | None:
        if key in other:
            self.compared += 1
            if other.pop(key) != value:
                return key
            self.last_equal = max(self.last_equal, key)
            return None
        mine[key] = value
        while len(mine) > KEYS_KEPT:
            del mine[next(iter(mine))]  # the oldest
        return None
