"""What a simulated history ends with when a promise was broken."""


class Violation(AssertionError):
    """Says when and what."""
