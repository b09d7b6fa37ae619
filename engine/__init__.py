"""The deterministic core: sequencer, accounts, pre-trade risk, order books and matching.

Imports ringbuf and nothing else of ours; touches no file, no environment and no network.
"""
