"""The durable order of events: group commit, chained checksums, one commit cursor, recovery.

Stores bytes and sequences, not orders: imports ringbuf and nothing else of ours.
"""
