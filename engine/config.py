"""Capacities of the deterministic core. They stand in the log's Genesis record and cannot change within a log."""

from __future__ import annotations

from dataclasses import dataclass

from ringbuf.wire.messages import Genesis

PARTITIONS_LIMIT = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Capacities of sequencer and matchers; each one is a clean reject when it is reached.

    Memory: about 220 bytes an order slot (lines, client ids, links, book node), 64 bytes a balance.
    """

    partitions: int = 1  # matchers, 1..63
    orders_per_partition: int = 1 << 16  # open orders of one matcher; power of two, at least 64
    accounts_max: int = 1024
    balances_max: int = 8192  # (account, asset) pairs
    sessions_max: int = 1024
    instruments_max: int = 256
    keys_max: int = 1024
    assets_max: int = 64
    open_orders_per_account_max: int = 1 << 16  # default cap of a new account
    cluster_id: int = 1
    hash_seed: int = 0x5BD1_E995_9E37_79B9  # seeds the tables' positions; a production cluster draws its own
    step_budget: int = 256  # outputs of one matching step

    def __post_init__(self) -> None:
        """Check the ranges that the C core would refuse, naming field and limit."""
        if not 1 <= self.partitions <= PARTITIONS_LIMIT:
            raise ValueError(f"partitions = {self.partitions}: must be 1 to {PARTITIONS_LIMIT}")
        orders = self.orders_per_partition
        if orders < 64 or orders & (orders - 1) or orders > 1 << 28:
            raise ValueError(f"orders_per_partition = {orders}: must be a power of two from 64 to 2^28")
        for name in ("accounts_max", "balances_max", "sessions_max", "keys_max", "assets_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 1 <= self.instruments_max <= 65535:
            raise ValueError(f"instruments_max = {self.instruments_max}: must be 1 to 65535")
        if self.step_budget < 8:
            raise ValueError(f"step_budget = {self.step_budget}: must be at least 8")

    @classmethod
    def of_genesis(cls, genesis: Genesis) -> EngineConfig:
        """Return the capacities that the first record of a log names."""
        return cls(
            partitions=genesis.partition_count,
            orders_per_partition=genesis.orders_per_partition,
            accounts_max=genesis.accounts_max,
            balances_max=genesis.balances_max,
            sessions_max=genesis.sessions_max,
            instruments_max=genesis.instruments_max,
            keys_max=genesis.keys_max,
            assets_max=genesis.assets_max,
            open_orders_per_account_max=genesis.open_orders_per_account_max,
            cluster_id=genesis.cluster_id,
            hash_seed=genesis.hash_seed,
        )
