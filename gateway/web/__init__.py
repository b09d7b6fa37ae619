"""The web gateway: REST and WebSocket API in Binance Spot shapes, private history and events, limits.

A worker process (app) answers requests: it sends orders on a session of its own and reads the rest from the history
store, which one history process keeps up to date from log and reports.
"""
