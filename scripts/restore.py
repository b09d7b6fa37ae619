"""`bullring restore`: make a node's data folder from a shipped log, or show that it could be made (`--verify`)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from journaler import JournalError
from journaler.recover import recover
from journaler.segments import sync_directory
from journaler.shipping import cut_at_mark, durable_mark
from scripts.arguments import command_parser, config_of, emit_one, progress
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import SEAL_KEY_BYTES
from scripts.rebuild import Rebuilt, rebuild
from scripts.ship import JOURNAL

NS_PER_S = 1_000_000_000
COPIED = ("segment-*.log", "segment-*.audit", "durable.mark")


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("restore", "Make a data folder from a shipped log; replay it and compare every hash mark.")
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR", help="where ship copied to")
    parser.add_argument("--seal-key", type=Path, metavar="FILE", help="seal.key, which is never shipped with the log")
    parser.add_argument("--verify", action="store_true", help="only show that it can be restored; write nothing")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    shipped = options.source / JOURNAL
    end = _end(shipped)
    facts: dict[str, Any] = {"restored": ""}
    journal = shipped
    if not options.verify:
        config = config_of(options)
        journal = config.journal_dir
        _restore(shipped, config.data_dir, options.seal_key)
        facts["restored"] = str(config.data_dir)
        if options.seal_key is None:
            progress("without --seal-key no HMAC key works: put seal.key there before the node is started")
    rebuilt = _rebuild(journal, end)
    facts |= {
        "log_end": rebuilt.records,
        "hash_marks": rebuilt.hash_marks,
        "state_hash": rebuilt.state_hash.hex(),
        "last_record_age_s": round((time.time_ns() - rebuilt.last_ns) / NS_PER_S, 3),
        "elapsed_s": round(time.monotonic() - began, 3),
        "fault": rebuilt.fault,
    }
    emit_one(facts, as_json=options.json)
    return ExitCode.NEGATIVE if rebuilt.fault else ExitCode.OK


def _end(shipped: Path) -> int:
    """Return what the last whole pass vouched for: a pass may be under way."""
    mark = durable_mark(shipped) if shipped.is_dir() else None
    if mark is None or mark.sequence == 0:
        raise CommandError(f"no log has been shipped to {shipped}", ExitCode.NO_INPUT)
    return mark.sequence


def _rebuild(journal: Path, end: int) -> Rebuilt:
    try:
        return rebuild(journal, end)
    except JournalError as error:
        raise CommandError(f"the log cannot be replayed: {error}", ExitCode.BAD_INPUT) from error


def _restore(shipped: Path, data_dir: Path, seal_key: Path | None) -> None:
    """Copy under another name, sync, then rename: a half restored folder is never taken for a node's."""
    target = data_dir / "journal"
    if target.exists():
        raise CommandError(f"{target} is there already: restore into an empty data folder", ExitCode.CANNOT_CREATE)
    secret = _read_seal_key(seal_key) if seal_key is not None else None
    draft = data_dir / "journal.restoring"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        for pattern in COPIED:
            for path in sorted(shipped.glob(pattern)):
                _copy(path, draft / path.name)
        cut_at_mark(draft)
        recover(draft)
        if secret is not None:
            _write_secret(data_dir / "seal.key", secret)
        draft.rename(target)
        sync_directory(data_dir)
    except JournalError as error:
        raise CommandError(f"the shipped log cannot be used: {error}", ExitCode.BAD_INPUT) from error
    except OSError as error:
        raise CommandError(f"cannot restore to {data_dir}: {error}", ExitCode.CANNOT_CREATE) from error


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o600)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _read_seal_key(path: Path) -> bytes:
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.NO_INPUT) from error
    if len(secret) != SEAL_KEY_BYTES:
        raise CommandError(f"{path} has {len(secret)} bytes; a seal key has {SEAL_KEY_BYTES}", ExitCode.BAD_INPUT)
    return secret


def _write_secret(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
