"""A process that takes part in nothing and does not end by itself."""

import signal

if __name__ == "__main__":
    signal.pause()
