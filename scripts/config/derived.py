"""What is filled in before a configuration is checked: absolute paths, and what "" asks for."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from scripts.config.gateways import FEED_LISTENERS
from scripts.config.section import ADDRESS, ConfigError

UNIX_SOCKET_PATH_MAX = 107
ADMIN_SOCKET = "admin.sock"
LEDGER_SOCKET = "ledger.sock"
HISTORY_SOCKET = "history.sock"
REPLICATOR_SOCKET = "replicator.sock"
FEED_PORT_OFFSET = 100  # replay; + 1 re-requests, + 2 snapshots


def resolve_paths(tables: dict[str, Any], base: Path) -> None:
    paths = (
        ("node", "data_dir"),
        ("node", "run_dir"),
        ("ledger", "directory"),
        ("ledger", "socket"),
        ("arbiter", "ca"),
        ("arbiter", "certificate"),
        ("arbiter", "key"),
    )
    for section, key in paths:
        value = tables.get(section, {}).get(key)
        if isinstance(value, str) and value:
            tables[section][key] = str(_absolute(value, base))
    server = tables.get("ledger", {}).get("clickhouse", {})
    if isinstance(server, dict) and isinstance(server.get("password_file"), str) and server["password_file"]:
        server["password_file"] = str(_absolute(server["password_file"], base))
    admin = tables.get("gateway", {}).get("admin", {})
    if isinstance(admin, dict) and isinstance(admin.get("socket"), str) and admin["socket"]:
        admin["socket"] = str(_absolute(admin["socket"], base))
    _resolve_tls(tables, base)


def _resolve_tls(tables: dict[str, Any], base: Path) -> None:
    for gateway in ("binary", "web"):
        table = tables.get("gateway", {}).get(gateway, {})
        for key in ("tls_certificate", "tls_key"):
            if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
                table[key] = str(_absolute(table[key], base))


def _absolute(value: str, base: Path) -> Path:
    return Path(os.path.abspath(base / Path(value).expanduser()))  # noqa: PTH100  resolve() would follow links


def derive(tables: dict[str, Any]) -> dict[str, Any]:
    """Fill in what "" asks for."""
    node, admin, ledger = tables["node"], tables["gateway"]["admin"], tables["ledger"]
    if node["mode"] == "":
        node["mode"] = "D1" if tables["replication"]["peer"] == "" else "D2"
    if not isinstance(node["data_dir"], str):
        return tables
    digest = hashlib.sha256(os.path.realpath(node["data_dir"]).encode()).hexdigest()[:8]
    if node["ring_prefix"] == "":
        node["ring_prefix"] = f"bullring.{digest}"
    if node["run_dir"] == "":
        run_dir = Path(node["data_dir"]) / "run"
        longest = max(ADMIN_SOCKET, LEDGER_SOCKET, HISTORY_SOCKET, REPLICATOR_SOCKET, key=len)
        if len(os.fsencode(run_dir / longest)) > UNIX_SOCKET_PATH_MAX:
            run_dir = Path(f"/tmp/bullring-{os.getuid()}-{digest}")
        node["run_dir"] = str(run_dir)
    if admin["socket"] == "":
        admin["socket"] = str(Path(node["run_dir"]) / ADMIN_SOCKET)
    _derive_feed(tables["gateway"])
    if ledger["socket"] == "":
        ledger["socket"] = str(Path(node["run_dir"]) / LEDGER_SOCKET)
    if ledger["directory"] == "":
        ledger["directory"] = str(Path(node["data_dir"]) / "ledger")
    inner = str(Path(node["run_dir"]) / REPLICATOR_SOCKET)
    sockets = (("node.run_dir", inner), ("gateway.admin.socket", admin["socket"]), ("ledger.socket", ledger["socket"]))
    for key, path in sockets:
        if len(os.fsencode(path)) > UNIX_SOCKET_PATH_MAX:
            raise ConfigError(f"{key} = {path!r}: a Unix socket's path may have {UNIX_SOCKET_PATH_MAX} bytes")
    return tables


def _derive_feed(gateway: dict[str, Any]) -> None:
    """The feed's ports follow the port of order entry, so that two nodes on a host differ in one key."""
    listen, feed = gateway["binary"]["listen"], gateway["feed"]
    if not isinstance(listen, str) or re.fullmatch(ADDRESS, listen) is None:
        return
    host, _, port = listen.rpartition(":")
    for place, key in enumerate(FEED_LISTENERS):
        if feed[key] == "":
            feed[key] = f"{host}:{int(port) + FEED_PORT_OFFSET + place if int(port) else 0}"
