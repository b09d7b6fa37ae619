"""Money after the trade: postings, ledger, statements, reconciliation.

Derives double-entry books from the committed log and keeps them in a columnar store. Imports ringbuf, the public
names of engine, and journaler.reader.
"""
