"""Ports for servers under test."""

import socket

_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on, never the same twice in one process.

    Another process may take it before the caller does; a server that can bind port 0 itself should.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
