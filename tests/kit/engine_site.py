"""A whole exchange in this process, without a journal: gateways, sequencer, matchers on private rings, in one loop."""

import threading
import time
from pathlib import Path

from engine import EngineConfig, Matcher, Sequencer
from gateway.admin import admin_config, admin_server
from gateway.binary import BinaryServer, ServerConfig
from ringbuf import Ring, Runner

SLOT_SIZE, MARKET_SLOT_SIZE = 128, 64
GATEWAY_SOURCE, ADMIN_SOURCE = 2, 1
TURN_NS = 2_000_000


class EngineSite:
    """Use as a context manager; `port` and `admin_path` say where it listens."""

    def __init__(
        self,
        folder: Path,
        *,
        partitions: int = 1,
        slots: int = 1 << 14,
        seal_key: bytes | None = None,
        config: ServerConfig | None = None,
        wait: str = "yield",
    ) -> None:
        engine = EngineConfig(partitions=partitions, sessions_max=256)
        self.log = Ring.private(slot_size=SLOT_SIZE, slot_count=slots)
        self.ingress = {
            source: Ring.private(slot_size=SLOT_SIZE, slot_count=slots, gating={0: "sequencer"})
            for source in (ADMIN_SOURCE, GATEWAY_SOURCE)
        }
        self.reports = [Ring.private(slot_size=SLOT_SIZE, slot_count=slots) for _ in range(partitions + 1)]
        self.reply = Ring.private(slot_size=SLOT_SIZE, slot_count=slots)
        self.sequencer = Sequencer(engine)
        self.sequencer.attach(
            log=self.log,
            report0=self.reports[0],
            reply=self.reply,
            reports=dict(enumerate(self.reports[1:], 1)),
            ingress=self.ingress,
        )
        self.matchers = []
        self.market = []
        for partition in range(1, partitions + 1):
            matcher = Matcher(engine, partition)
            market = Ring.private(slot_size=MARKET_SLOT_SIZE, slot_count=slots)
            matcher.attach(log=self.log, reports=self.reports[partition], market=market)
            self.matchers.append(matcher)
            self.market.append(market)
        self.sequencer.lead(epoch=1, node=1)
        limits = config or ServerConfig(source=GATEWAY_SOURCE, partitions=partitions, sessions_max=256)
        self.server = BinaryServer(limits, seal_key=seal_key)
        self.admin = admin_server(admin_config(partitions=partitions, sessions_max=256))
        for server, source in ((self.server, GATEWAY_SOURCE), (self.admin, ADMIN_SOURCE)):
            server.attach(ingress=self.ingress[source], log=self.log, reports=self.reports, reply=self.reply)
        self.port = self.server.listen_tcp("127.0.0.1", 0)
        self.admin_path = folder / "admin.sock"
        self.admin.listen_unix(self.admin_path)
        matcher_stages = [matcher.stage for matcher in self.matchers]
        self._runner = Runner([self.server.stage, self.admin.stage, self.sequencer.stage, *matcher_stages], wait=wait)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> "EngineSite":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(10)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stop:
                result = self._runner.run(TURN_NS)
                if result.status < 0:
                    raise RuntimeError(f"stage {result} failed: {self.sequencer.error}")
                self.server.service()
                if result.work == 0:
                    time.sleep(0.0005)
        except BaseException as error:
            self.error = error
