"""The wire schema of Bullring and what is generated from it."""
