"""The outside world: binary order entry, authentication, throttles, client libraries.

Imports ringbuf, the public names of engine, and journaler.reader.
"""
