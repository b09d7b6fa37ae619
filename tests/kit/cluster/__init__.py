"""A simulated cluster: the real replication code and state machine over simulated network, disks, clocks and arbiter.

One seed is one history, and always the same one. A rule that is broken raises Violation, saying when and what.
"""

from tests.kit.cluster.violation import Violation
from tests.kit.cluster.world import World

__all__ = ["Violation", "World"]
