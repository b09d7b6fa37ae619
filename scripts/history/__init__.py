"""Histories: what clients sent and were told, written down by themselves, and judged against the log afterwards."""
