"""Money after the trade: postings, ledger, fees, statements, reconciliation, wallets, surveillance.

Nothing lives here yet: balances and fees of a trade are settled in the engine, and this package will turn the
committed log into books of account. Will import ringbuf, the public names of engine, and journaler.reader.
"""
