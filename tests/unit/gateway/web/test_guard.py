"""Connections without a whole request are closed in time; others are left alone."""

from gateway.web.guard import HeadGuard


class Connection:
    def __init__(self, requests: int = 0) -> None:
        self._request_count = requests
        self._current_request = None
        self.transport = object()
        self.closed = False

    def force_close(self) -> None:
        self.closed = True


def test_only_who_has_said_nothing_whole_in_time_is_closed() -> None:
    guard = HeadGuard(head_s=10.0)
    silent, talking, late = Connection(), Connection(requests=1), Connection()

    guard.look([silent, talking], 0.0)
    guard.look([silent, talking, late], 5.0)
    guard.look([silent, talking, late], 10.0)

    assert (silent.closed, talking.closed, late.closed) == (True, False, False)
    assert guard.closed == 1


def test_a_connection_that_spoke_in_between_begins_anew() -> None:
    guard = HeadGuard(head_s=10.0)
    connection = Connection()
    guard.look([connection], 0.0)

    connection._request_count = 1
    guard.look([connection], 9.0)
    guard.look([connection], 30.0)

    assert not connection.closed
