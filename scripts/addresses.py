"""Addresses to listen on: names become numbers, errors sentences."""

from __future__ import annotations

import errno
import socket

from scripts.exit_codes import CommandError, ExitCode


def numeric(host: str, key: str) -> str:
    """Return the first address of a host. Raises CommandError naming the key of the configuration."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as error:
        raise CommandError(f"{key}: no such host {host!r}", ExitCode.CONFIGURATION) from error


def listen_error(error: OSError, address: str, key: str) -> CommandError:
    """Return what to tell when an address cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return CommandError(
            f"{address} is in use by another program: stop that, or choose another with {key}", ExitCode.CANNOT_CREATE
        )
    code = ExitCode.NO_PERMISSION if error.errno == errno.EACCES else ExitCode.CANNOT_CREATE
    return CommandError(f"cannot listen on {address} ({key}): {error.strerror}", code)
