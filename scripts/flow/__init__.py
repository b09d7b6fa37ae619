"""Recorded order flow: reading it, sending it through the binary gateway, comparing what the exchange makes of it."""
