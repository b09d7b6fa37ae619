"""The Python clients; import them from gateway.clients."""
