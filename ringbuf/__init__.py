"""Shared-memory rings, counters and the wire layout: the bottom package, which imports nothing of ours."""

from ringbuf.errors import (
    CorruptCounters,
    CountersFull,
    DoorbellsFull,
    Lapped,
    LayoutMismatch,
    NoMemory,
    ProducerBusy,
    RingbufError,
    RingFull,
    SegmentExists,
    SegmentMissing,
    SegmentNotReady,
)
from ringbuf.ring import Consumer, Mode, Ring, Watch
from ringbuf.segment import EXIT_PRODUCER_BUSY, Segment, remove_segment, segments_under

__all__ = [
    "EXIT_PRODUCER_BUSY",
    "Consumer",
    "CorruptCounters",
    "CountersFull",
    "DoorbellsFull",
    "Lapped",
    "LayoutMismatch",
    "Mode",
    "NoMemory",
    "ProducerBusy",
    "Ring",
    "RingFull",
    "RingbufError",
    "Segment",
    "SegmentExists",
    "SegmentMissing",
    "SegmentNotReady",
    "Watch",
    "remove_segment",
    "segments_under",
]
