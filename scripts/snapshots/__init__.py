"""Snapshots of the engine's state: their files, taking and verifying them, choosing one at a start (S1 to S6).

A snapshot is a folder DATA/snapshots/SEQUENCE with one image file an owner and a manifest. A folder under that name has
been verified by another process; it is never changed afterwards.
"""
