"""The deterministic core: sequencer, accounts, pre-trade risk, order books and matching.

Imports ringbuf and nothing else of ours; touches no file, no environment and no network.
"""

from engine.config import EngineConfig
from engine.engine import ComposedEngine, MarketEvent, Output, feed_composed, scan_marks
from engine.errors import CapacityError, EngineError, ReplayError, StageFailed
from engine.matcher import Matcher
from engine.sequencer import Sequencer, SequencerCounter

__all__ = [
    "CapacityError",
    "ComposedEngine",
    "EngineConfig",
    "EngineError",
    "MarketEvent",
    "Matcher",
    "Output",
    "ReplayError",
    "Sequencer",
    "SequencerCounter",
    "StageFailed",
    "feed_composed",
    "scan_marks",
]
