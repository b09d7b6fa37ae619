"""A process that publishes and journals until it dies: python -m tests.kit.journal_child RING DIRECTORY SEED.

Prints "synced N" after each poll that moved the log's durable end; the content of a record follows from its sequence.
"""

import random
import sys
from pathlib import Path

from ringbuf import Ring
from tests.kit import journals


def main(name: str, directory: str, seed: str) -> None:
    rng = random.Random(seed)
    with Ring.attach(name) as ring, journals.opened(Path(directory), ring, segments_ahead=2) as journaler:
        durable = -1
        while True:
            for _ in range(rng.randrange(1, 30)):
                count = rng.randrange(1, 9)
                if ring.room() >= count:
                    journals.publish(ring, journals.group(ring.published, count))
            journaler.poll()
            if journaler.position.sequence != durable:
                durable = journaler.position.sequence
                print("synced", durable, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
