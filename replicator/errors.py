"""Errors of replication that somebody has to decide about."""


class ReplicatorError(Exception):
    """Something outside is wrong: a peer, a key, a file."""


class BadFrame(ReplicatorError):
    """Bytes that are no frame of this cluster; the sender is not to be believed."""


class LogForked(ReplicatorError):
    """The peer's log has other records than ours below a position that both hold."""

    def __init__(self, what: str, *, sequence: int, ours: int, theirs: int) -> None:
        super().__init__(f"{what} at sequence {sequence}: chain {ours:016x} here, {theirs:016x} there")
        self.sequence = sequence
