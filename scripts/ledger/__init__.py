"""The ledger in a node: its process, its store as configured, its commands."""
