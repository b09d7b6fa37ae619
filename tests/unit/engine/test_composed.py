"""The composed core: what an order does to money, books and reports."""

from engine.engine import ACCOUNT_DUST, ACCOUNT_VENUE
from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import BASE, PAIR, QUOTE, make_exchange, of


def test_resting_order_holds_its_cost():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)

    reports = exchange.buy(buyer, 10, 5)

    assert [type(out.message) for out in reports] == [wire.OrderAccepted]
    assert exchange.engine.balance(buyer, QUOTE) == (950, 50)
    assert exchange.engine.book(PAIR) == ([(1, 10, 5)], [])
    exchange.engine.check()


def test_fill_at_a_better_price_gives_the_difference_back():
    exchange = make_exchange()
    seller, buyer = exchange.account(base=100), exchange.account(quote=1000)
    exchange.sell(seller, 8, 5)

    fills = of(exchange.buy(buyer, 10, 5), wire.OrderExecuted)

    assert [(fill.last_px, fill.last_qty, fill.liquidity) for fill in fills] == [
        (8, 5, wire.Liquidity.MAKER),
        (8, 5, wire.Liquidity.TAKER),
    ]
    assert exchange.engine.balance(buyer, QUOTE) == (960, 0)
    assert exchange.engine.balance(buyer, BASE) == (5, 0)
    assert exchange.engine.balance(seller, QUOTE) == (40, 0)
    exchange.engine.check()


def test_fees_come_from_the_asset_received_and_round_up():
    exchange = make_exchange(maker_rate=1000, taker_rate=2000)
    seller, buyer = exchange.account(base=10_000), exchange.account(quote=1_000_000)
    exchange.sell(seller, 7, 1501)

    maker, taker = of(exchange.buy(buyer, 7, 1501), wire.OrderExecuted)

    # maker received 10507 quote: 10.507 -> 11; taker received 1501 base: 3.002 -> 4
    assert (maker.fee, maker.fee_asset_id) == (11, QUOTE)
    assert (taker.fee, taker.fee_asset_id) == (4, BASE)
    assert (maker.fee_rounding, taker.fee_rounding) == (1, 1)
    assert [exchange.engine.balance(ACCOUNT_VENUE, asset) for asset in (QUOTE, BASE)] == [(10, 0), (3, 0)]
    assert [exchange.engine.balance(ACCOUNT_DUST, asset) for asset in (QUOTE, BASE)] == [(1, 0), (1, 0)]
    assert exchange.engine.balance(seller, QUOTE) == (10507 - 11, 0)
    exchange.engine.check()


def test_order_beyond_the_money_is_refused_with_what_is_there():
    exchange = make_exchange()
    buyer = exchange.account(quote=49)

    [report] = of(exchange.buy(buyer, 10, 5), wire.OrderRejected)

    assert (report.reject_code, report.limit) == (wire.RejectCode.INSUFFICIENT_BALANCE, 49)
    assert exchange.engine.balance(buyer, QUOTE) == (49, 0)


def test_second_open_order_with_a_client_id_is_refused_and_it_is_free_again_after_cancel():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)
    [accepted] = of(exchange.buy(buyer, 10, 5, cl_ord_id=77), wire.OrderAccepted)

    [report] = of(exchange.buy(buyer, 10, 5, cl_ord_id=77), wire.OrderRejected)
    exchange.cancel(buyer, accepted.order_id)
    again = of(exchange.buy(buyer, 10, 5, cl_ord_id=77), wire.OrderAccepted)

    assert report.reject_code == wire.RejectCode.DUPLICATE_CL_ORD_ID
    assert len(again) == 1
    assert again[0].order_id > accepted.order_id


def test_replace_holds_more_and_gives_back_less():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)
    [accepted] = of(exchange.buy(buyer, 10, 5), wire.OrderAccepted)

    exchange.replace(buyer, accepted.order_id, price=20, order_qty=10)
    assert exchange.engine.balance(buyer, QUOTE) == (800, 200)
    exchange.replace(buyer, accepted.order_id, order_qty=1)
    assert exchange.engine.balance(buyer, QUOTE) == (980, 20)
    exchange.engine.check()


def test_duplicate_number_is_dropped_and_a_gap_is_not_applied():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)
    session = exchange.sessions[buyer]
    exchange.buy(buyer, 10, 1)
    order = wire.NewOrderSingle(
        price=10,
        order_qty=1,
        instrument_id=PAIR,
        side=wire.Side.BUY,
        ord_type=wire.OrdType.LIMIT,
        time_in_force=wire.TimeInForce.GTC,
    )

    assert exchange.engine.submit(session, order, seq_num=1) == []
    assert exchange.engine.submit(session, order, seq_num=4) == []

    [gap] = exchange.engine.replies()
    assert gap == wire.NotApplied(from_seq_no=2, count=2)
    assert len(exchange.engine.open_orders(buyer)) == 1


def test_replay_of_the_log_gives_the_same_state_and_the_same_reports():
    live = make_exchange(maker_rate=-100, taker_rate=300)
    first, second = live.account(base=10_000, quote=100_000), live.account(base=10_000, quote=100_000)
    for step in range(50):
        live.buy(first if step % 2 else second, 100 + step % 7, 3 + step % 5)
        live.sell(second if step % 3 else first, 98 + step % 11, 2 + step % 6)

    replayed = type(live.engine)(live.engine.config)
    replayed.replay(live.engine.log_records())

    assert replayed.state_hash() == live.engine.state_hash()
    for partition in (0, 1):
        ours, theirs = live.engine.reports[partition], replayed.reports[partition]
        assert ours.published == theirs.published
        assert ours.read(0, ours.published) == theirs.read(0, theirs.published)


def test_replay_of_a_log_with_more_reports_than_the_rings_hold_reaches_its_end():
    live = make_exchange()
    account = live.account(base=10_000, quote=100_000)
    for step in range(300):
        live.buy(account, 100 + step % 7, 1)
        live.sell(account, 98 + step % 11, 1)
    [(first, records)] = live.engine.log_records()

    replayed, roomy = type(live.engine)(live.engine.config, ring_slots=512), type(live.engine)(live.engine.config)
    for engine in (replayed, roomy):
        engine.replay([(first + at // 128, records[at : at + 128]) for at in range(0, len(records), 128)])

    assert live.engine.reports[1].published > 512
    assert replayed.state_hash() == roomy.state_hash()


def test_a_flipped_amount_in_the_log_is_caught_by_the_hash_mark():
    """Planted fault: the check that guards replay must be able to fail."""
    live = make_exchange()
    live.account(quote=1000)
    live.engine.set_time(live.engine._now_ns + 2_000_000_000)
    live.engine.submit_slots(b"")
    [(first, records)] = live.engine.log_records()
    mark = [
        index
        for index in range(0, len(records), 128)
        if int.from_bytes(records[index + 6 : index + 8], "little") == wire.Template.HASH_MARK
    ]
    assert mark
    deposit = next(
        index
        for index in range(0, len(records), 128)
        if int.from_bytes(records[index + 6 : index + 8], "little") == wire.Template.BALANCE_ADJUST
    )
    damaged = bytearray(records)
    damaged[deposit + 32 + 8] ^= 1

    replayed = type(live.engine)(live.engine.config)
    try:
        replayed.replay([(first, bytes(damaged))])
    except Exception as error:
        assert "HASHMARK" in str(error)
    else:
        raise AssertionError("a different history was accepted")


def test_skipped_numbers_are_not_answered_and_the_next_request_is_taken():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)
    session = exchange.sessions[buyer]

    skipped = exchange.engine.submit(session, wire.Sequence(next_seq_no=5), seq_num=0)
    taken = exchange.engine.submit(session, wire.MassCancelRequest(cl_ord_id=1), seq_num=5)

    assert skipped == []
    assert [report.ref_seq_num for report in of(taken, wire.MassCancelReport)] == [5]


def test_linked_requests_that_make_no_command_are_refused_together():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)
    session = exchange.sessions[buyer]
    order = {"price": 10, "order_qty": 1, "instrument_id": PAIR, "side": wire.Side.BUY, "ord_type": wire.OrdType.LIMIT}
    order["time_in_force"] = wire.TimeInForce.GTC

    outputs = exchange.engine.submit(session, wire.NewOrderSingle(cl_ord_id=1, **order), flags=1)
    outputs += exchange.engine.submit(session, wire.NewOrderSingle(cl_ord_id=2, **order))
    details = exchange.engine.submit(session, wire.OrderDetails(client_text="text"))
    alone = exchange.engine.submit(session, wire.NewOrderSingle(cl_ord_id=3, **order))

    refused = of(outputs, wire.OrderRejected)
    assert [(report.cl_ord_id, report.reject_code) for report in refused] == [
        (1, wire.RejectCode.INVALID_GROUP),
        (2, wire.RejectCode.INVALID_GROUP),
    ]
    assert [report.reject_code for report in of(details, wire.BusinessReject)] == [wire.RejectCode.INVALID_GROUP]
    assert [report.cl_ord_id for report in of(alone, wire.OrderAccepted)] == [3]


def test_order_with_details_is_one_command_and_answered_once():
    exchange = make_exchange()
    buyer = exchange.account(quote=1000)
    session = exchange.sessions[buyer]
    order = {"price": 10, "order_qty": 8, "display_qty": 2, "instrument_id": PAIR, "side": wire.Side.BUY}
    order |= {"ord_type": wire.OrdType.LIMIT, "time_in_force": wire.TimeInForce.GTC}

    outputs = exchange.engine.submit(session, wire.OrderDetails(client_text="my-own", initial_display_qty=5), flags=1)
    outputs += exchange.engine.submit(session, wire.NewOrderSingle(cl_ord_id=2, **order))

    assert [type(output.message) for output in outputs] == [wire.OrderAccepted]
    assert exchange.engine.book(PAIR) == ([(1, 10, 5)], [])


def test_rebate_above_the_smallest_taker_fee_of_the_pair_is_refused():
    """Whether it is asked for the pair or for all pairs, and whichever tier the smallest fee belongs to."""
    exchange = make_exchange(maker_rate=0, taker_rate=300)

    def rates(tier: int, instrument: int, maker: int, taker: int) -> wire.RejectCode:
        return exchange.admin(
            wire.FeeTierSet(maker_rate=maker, taker_rate=taker, instrument_id=instrument, tier=tier)
        ).code

    assert rates(1, PAIR, -300, 400) == wire.RejectCode.NONE
    assert rates(2, PAIR, -301, 400) == wire.RejectCode.OUT_OF_RANGE
    assert rates(3, 0, 0, 299) == wire.RejectCode.OUT_OF_RANGE
    assert rates(3, PAIR, 0, 299) == wire.RejectCode.OUT_OF_RANGE
    assert rates(3, 0, 0, 300) == wire.RejectCode.NONE
