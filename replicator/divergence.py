"""Compares the state hashes of primary and standby at the hash marks of the log (S4)."""

from __future__ import annotations

MARKS_KEPT = 256


class HashLedger:
    """Hashes of one state by mark, as both nodes report them, in whichever order they come."""

    def __init__(self) -> None:
        self._own: dict[int, bytes] = {}
        self._peer: dict[int, bytes] = {}
        self.compared = 0
        self.last_equal = 0  # newest mark at which both were the same

    def own(self, mark: int, state_hash: bytes) -> int | None:
        """Note our hash at a mark; return the mark if the peer's is known and differs."""
        return self._note(self._own, self._peer, mark, state_hash)

    def peer(self, mark: int, state_hash: bytes) -> int | None:
        """Note the peer's hash at a mark; return the mark if ours is known and differs."""
        return self._note(self._peer, self._own, mark, state_hash)

    def _note(self, mine: dict[int, bytes], other: dict[int, bytes], mark: int, state_hash: bytes) -> int | None:
        if mine.get(mark) == state_hash:
            return None
        mine[mark] = state_hash
        while len(mine) > MARKS_KEPT:
            del mine[min(mine)]
        if mark not in other:
            return None
        self.compared += 1
        if other[mark] == state_hash:
            self.last_equal = max(self.last_equal, mark)
            return None
        return mark
