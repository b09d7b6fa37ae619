"""The deterministic core: sequencer, accounts, pre-trade risk, order books and matching.

Imports ringbuf and nothing else of ours; touches no file, no environment and no network.
"""

from engine.config import EngineConfig
from engine.engine import ComposedEngine, MarketEvent, Output, feed_composed, scan_marks
from engine.errors import CapacityError, EngineError, ReplayError, StageFailed
from engine.image import image_arena, image_head, image_layout, image_loaded, image_runs
from engine.matcher import Matcher
from engine.replica import Outputs, Places, Replica, Watch
from engine.sequencer import Sequencer, SequencerCounter

__all__ = [
    "CapacityError",
    "ComposedEngine",
    "EngineConfig",
    "EngineError",
    "MarketEvent",
    "Matcher",
    "Output",
    "Outputs",
    "Places",
    "ReplayError",
    "Replica",
    "Sequencer",
    "SequencerCounter",
    "StageFailed",
    "Watch",
    "feed_composed",
    "image_arena",
    "image_head",
    "image_layout",
    "image_loaded",
    "image_runs",
    "scan_marks",
]
