"""Shared-memory rings, counters and the wire layout: the bottom package, which imports nothing of ours."""
