"""What the log says about the past: accounts, and the dumps of broken invariants."""
