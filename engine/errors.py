"""What can go wrong in the engine's shell. A refused order is no error: it is a report with a code."""


class EngineError(Exception):
    """Base of the engine's errors."""


class CapacityError(EngineError):
    """A capacity of the configuration is out of range or does not fit in memory."""


class ReplayError(EngineError):
    """The log cannot be replayed: it does not belong to this configuration, or state diverged from a hash mark."""


class StageFailed(EngineError):
    """A stage refused to go on."""
