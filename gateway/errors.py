"""What can go wrong while a gateway is set up. Refused requests are no errors: they are answered."""


class ListenError(OSError):
    """An address or socket path cannot be listened on."""


class GatewayConfigError(ValueError):
    """A limit of the configuration is out of range; the text names it."""
