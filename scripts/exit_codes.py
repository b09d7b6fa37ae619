"""Exit codes of every command, after BSD's sysexits.h. docs/EXIT_CODES.md is the same table; a test compares them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    NOT_SUPPORTED = 3
    BAD_INPUT = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    CANNOT_CREATE = 73
    IO_ERROR = 74
    BUSY = 75
    REFUSED = 76
    NO_PERMISSION = 77
    CONFIGURATION = 78
    DIVERGED = 79
    INTERRUPTED = 130


MEANING: dict[ExitCode, str] = {
    ExitCode.OK: "done; a comparison or check agreed; a stop that was asked for",
    ExitCode.NEGATIVE: "a comparison, check or drill ran to its end and its verdict is no",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.NOT_SUPPORTED: "the input needs something this exchange cannot do yet; nothing was compared",
    ExitCode.BAD_INPUT: "an input file or value is malformed",
    ExitCode.NO_INPUT: "an input file does not exist or cannot be read",
    ExitCode.UNAVAILABLE: "the exchange, or a process of it, does not run or does not answer",
    ExitCode.INTERNAL: "a broken invariant or a process that died again and again",
    ExitCode.CANNOT_CREATE: "something cannot be created: a port in use, a folder that cannot be written",
    ExitCode.IO_ERROR: "reading or writing failed",
    ExitCode.BUSY: "another instance works on the same data; try again when it has ended",
    ExitCode.REFUSED: "the exchange refused the request; the message names code, field and limit",
    ExitCode.NO_PERMISSION: "the account of the operating system may not do this",
    ExitCode.CONFIGURATION: "the configuration is wrong; the message names key, value and limit",
    ExitCode.DIVERGED: "a process makes other outputs of the log than were published: stop and find out why",
    ExitCode.INTERRUPTED: "ended by Ctrl-C before it was done",
}


class CommandError(Exception):
    """A command cannot go on: one sentence for the user, one exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code
