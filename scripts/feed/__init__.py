"""`bullring feed`: watch, record, tokens, repair."""
