"""What tests share: waiting for a condition, free ports, and the reading of our own source for the tidy checks."""

from tests.kit.ports import free_port
from tests.kit.waiting import eventually

__all__ = ["eventually", "free_port"]
