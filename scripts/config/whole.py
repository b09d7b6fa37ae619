"""The whole configuration: what its sections demand of each other, and names that follow from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.config.cluster import ArbiterConfig, ReplicationConfig
from scripts.config.engine import CapacitiesConfig, NodeConfig, PlacementConfig, RingsConfig, SupervisorConfig
from scripts.config.gateways import GatewayConfig
from scripts.config.section import ConfigError, Section
from scripts.config.storage import JournalConfig, LedgerConfig, SnapshotsConfig


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """The whole configuration. Paths are absolute, derived names filled in."""

    node: NodeConfig
    capacities: CapacitiesConfig
    rings: RingsConfig
    journal: JournalConfig
    placement: PlacementConfig
    supervisor: SupervisorConfig
    snapshots: SnapshotsConfig
    gateway: GatewayConfig
    ledger: LedgerConfig
    replication: ReplicationConfig
    arbiter: ArbiterConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ledger.enabled and not self.journal.archive:
            raise ConfigError(
                "journal.archive = false: the ledger reads reports from the archive; switch it off too "
                "(ledger.enabled = false), or keep the archive"
            )
        if self.gateway.web.workers and not self.journal.archive:
            raise ConfigError(
                "journal.archive = false: the web gateway reads old reports there; set gateway.web.workers = 0"
            )
        mode, peer = self.node.mode, self.replication.peer
        if self.replicated != (mode in ("D1a", "D2", "D2m")):
            wanted = '"D2", "D2m" or "D1a"' if self.replicated else '"D1" or "D0"'
            raise ConfigError(f"node.mode = {mode!r}: must be {wanted} with replication.peer = {peer!r}")
        if self.replicated and self.node.node_id == self.replication.peer_node:
            raise ConfigError(f"replication.peer_node = {self.replication.peer_node}: must differ from node.node_id")

    @property
    def replicated(self) -> bool:
        """Whether this node is one of two."""
        return self.replication.peer != ""

    @property
    def data_dir(self) -> Path:
        return Path(self.node.data_dir)

    @property
    def run_dir(self) -> Path:
        return Path(self.node.run_dir)

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def admin_socket(self) -> Path:
        return Path(self.gateway.admin.socket)

    @property
    def ledger_dir(self) -> Path:
        """The embedded store of the books; can be made again from the journal."""
        return Path(self.ledger.directory)

    @property
    def ledger_socket(self) -> Path:
        return Path(self.ledger.socket)

    @property
    def keys_dir(self) -> Path:
        """Private keys that the command line made: never read by the exchange."""
        return self.data_dir / "keys"

    @property
    def seal_key_path(self) -> Path:
        """The key HMAC secrets are derived with; kept outside the log."""
        return self.data_dir / "seal.key"

    @property
    def web_dir(self) -> Path:
        """The web gateway's own: history store, sessions and keys of its workers."""
        return self.data_dir / "web"

    @property
    def feed_key_path(self) -> Path:
        """The key that tokens of the market feed are made with."""
        return self.data_dir / "feed.key"

    def definitions_path(self, process: str) -> Path:
        """What a process of the feed remembers of the reference channel."""
        return self.data_dir / f"{process}.definitions"

    @property
    def has_feed(self) -> bool:
        """Is there a market feed? It needs the archive."""
        return self.gateway.feed.enabled and self.journal.archive

    @property
    def has_feed_web(self) -> bool:
        """Is it served over WebSocket, too?"""
        return self.has_feed and self.gateway.feed.listen_web != ""

    @property
    def counters_dir(self) -> Path:
        return self.run_dir / "counters"

    def as_tables(self) -> dict[str, Any]:
        """Return the configuration as the tables of a TOML or JSON file that `from_tables` takes back."""
        tables: dict[str, Any] = dataclasses.asdict(self)
        return tables
