"""Books built from the market-data ring."""
