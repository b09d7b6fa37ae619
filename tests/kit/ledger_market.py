"""A recorded market of a few hundred commands for tests of books: trades, cancels, replaces, fees, several days."""

from __future__ import annotations

from random import Random

from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import PAIR, make_exchange
from tests.kit.ledger_run import LedgerRun, Recording

START_NS = 1_700_000_000_000_000_000
DAY_NS = 86_400_000_000_000


def record_market(commands: int = 400, *, seed: int = 1, days: int = 1, partitions: int = 1) -> Recording:
    """Return what a random market left behind; the commands are spread over `days` days."""
    random = Random(seed)
    exchange = make_exchange(maker_rate=-3_000, taker_rate=7_000, partitions=partitions)
    run = LedgerRun(exchange.engine)
    accounts = [exchange.account(base=10**9, quote=10**12, fee_tier=0) for _ in range(4)]
    orders: list[tuple[int, int]] = []
    now = START_NS
    for number in range(commands):
        now += days * DAY_NS // commands if days > 1 else 3_000_000
        exchange.engine.set_time(now)
        account = random.choice(accounts)
        kind = random.random()
        if kind < 0.7 or not orders:
            outputs = exchange.order(
                account,
                random.choice(list(wire.Side)),
                random.randint(95, 105),
                random.randint(1, 50),
                time_in_force=random.choice([wire.TimeInForce.GTC, wire.TimeInForce.IOC]),
            )
            ids = [out.message.order_id for out in outputs if isinstance(out.message, wire.OrderAccepted)]
            orders += [(account, order_id) for order_id in ids]
        elif kind < 0.85:
            owner, order_id = orders.pop(random.randrange(len(orders)))
            exchange.cancel(owner, order_id)
        else:
            owner, order_id = random.choice(orders)
            exchange.replace(owner, order_id, price=random.randint(95, 105), order_qty=random.randint(1, 80))
        if number % 50 == 0:
            amount = random.randint(-1000, 1000) or 1
            exchange.admin(
                wire.BalanceAdjust(amount=amount, account_id=account, asset_id=PAIR, kind=wire.BalanceKind.DEPOSIT)
            )
        run.follow()
    run.tick(now + 1_500_000_000)
    run.tick(now + 3_000_000_000)
    exchange.engine.close()
    assert run.derivation.counts().marks_differing == 0
    return run.recording
