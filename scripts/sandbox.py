"""Takes from a process what it does not need, with Landlock: without privileges or another user, and for good.

A gateway talks to strangers. Once its rings are mapped and its sockets open it needs to open hardly anything; from
then on it can neither write a file nor read journal or keys, whatever a stranger makes it do. Its map of the log is
read-only besides. Where the kernel has no Landlock (before 5.13, or not switched on) nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from struct import Struct

from scripts.config import CHECKOUT

# landlock(7), the same numbers on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
READ = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | READ_FILE
# Kinds of access by version: reading, writing, making and removing; then moving; then truncating.
ACCESS_BITS = {1: 13, 2: 14, 3: 15}
_RULESET = Struct("=Q")
_PATH_BENEATH = Struct("=Qi")
PROGRAM = ("ringbuf", "engine", "journaler", "replicator", "gateway", "settlement", "scripts")
SYSTEM = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/dev/null", "/dev/urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """Return what this kernel offers, 0 for nothing."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), CREATE_RULESET_VERSION)))


def program_paths() -> list[Path]:
    """Where the program itself is read from: modules are imported when they are first used."""
    own = [CHECKOUT / name for name in PROGRAM]
    return [*own, Path(sys.prefix), Path(sys.base_prefix), *map(Path, SYSTEM)]


def read_only(paths: Iterable[Path]) -> bool:
    """From here on this thread and its children open nothing but what lies beneath `paths`, and that for reading.

    What is open or mapped already stays so. False: this kernel cannot. Raises OSError if it refuses.
    """
    version = landlock_version()
    if version == 0:
        return False
    handled = (1 << ACCESS_BITS.get(version, max(ACCESS_BITS.values()))) - 1
    attributes = ctypes.create_string_buffer(_RULESET.pack(handled), _RULESET.size)
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(_RULESET.size), 0)
    try:
        for path in paths:
            _allow(ruleset, path)
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), 0)
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rights = READ if path.is_dir() else FILE_RIGHTS
        rule = ctypes.create_string_buffer(_PATH_BENEATH.pack(rights, fd), _PATH_BENEATH.size)
        _call(ADD_RULE, ctypes.c_int(ruleset), RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"landlock: system call {number}: {os.strerror(ctypes.get_errno())}")
    return result
