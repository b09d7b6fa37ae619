"""The hot standby: the committed log sent to a second host, failover, comparison of state hashes.

Nothing lives here yet. To come: protocol, transport (ZeroMQ), primary, standby, catch-up and the failover
state machine. Will import ringbuf and journaler.
"""
