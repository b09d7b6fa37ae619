"""The configuration: TOML in, frozen dataclasses out, read once.

`scripts/bullring.toml` holds every key with its default; a file of the operator's names what differs. A key, its type
and its range stand here once, in the dataclasses; the text beside it stands in bullring.toml (a test compares them).
"""

from scripts.config.derived import HISTORY_SOCKET, REPLICATOR_SOCKET, UNIX_SOCKET_PATH_MAX
from scripts.config.engine import STAGES_CORES_MIN
from scripts.config.files import CHECKOUT, DEFAULTS_PATH, default_base, from_tables, known_keys, load
from scripts.config.gateways import FEED_LISTENERS, FeedSection
from scripts.config.section import ConfigError, Section, split_address
from scripts.config.storage import SNAPSHOT_RECORDS_MIN
from scripts.config.whole import Config

__all__ = [
    "CHECKOUT",
    "DEFAULTS_PATH",
    "FEED_LISTENERS",
    "HISTORY_SOCKET",
    "REPLICATOR_SOCKET",
    "SNAPSHOT_RECORDS_MIN",
    "STAGES_CORES_MIN",
    "UNIX_SOCKET_PATH_MAX",
    "Config",
    "ConfigError",
    "FeedSection",
    "Section",
    "default_base",
    "from_tables",
    "known_keys",
    "load",
    "split_address",
]
