"""`bullring account create|list|show|deposit`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ringbuf.wire import messages as wire
from scripts.admin.link import AdminLink
from scripts.amounts import from_units, to_units
from scripts.arguments import add_common, command_parser, config_of, emit, emit_one
from scripts.exit_codes import CommandError, ExitCode


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("account", "Accounts and their balances.")
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create an account")
    create.add_argument("--fund", action="append", default=[], metavar="ASSET=AMOUNT", help="for instance BTC=10")
    create.add_argument("--stp-group", type=int, default=0, metavar="N", help="self-trade prevention group, 0 = none")
    create.add_argument("--firm", type=int, default=0, metavar="N", help="firm the account belongs to, 0 = none")
    create.add_argument("--fee-tier", type=int, default=0, choices=range(16), metavar="0..15")
    listing = actions.add_parser("list", help="list accounts")
    show = actions.add_parser("show", help="one account with its balances")
    deposit = actions.add_parser("deposit", help="credit an account; a negative amount debits it")
    deposit.add_argument("--fund", action="append", required=True, metavar="ASSET=AMOUNT")
    for action in (show, deposit):
        action.add_argument("account", type=int, help="account id")
    for action in (create, listing, show, deposit):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)

    with AdminLink.open(config_of(options)) as link:
        if options.action == "list":
            emit([as_row(reply) for reply in link.accounts()], as_json=options.json, empty="no accounts")
            return ExitCode.OK
        if options.action == "create":
            # Looked at before anything is created, so that a typing error leaves nothing behind.
            funds = parse_funds(link, options.fund)
            account = create_account(link, stp_group=options.stp_group, firm=options.firm, fee_tier=options.fee_tier)
        else:
            account = options.account
            require_account(link, account)
            funds = parse_funds(link, options.fund) if options.action == "deposit" else []
        for asset, units in funds:
            credit(link, account=account, asset=asset, units=units)
        emit_one({"account": account, "balances": balances(link, account)}, as_json=options.json)
    return ExitCode.OK


def create_account(link: AdminLink, *, stp_group: int = 0, firm: int = 0, fee_tier: int = 0) -> int:
    message = wire.AccountCreate(stp_group_id=stp_group, firm_id=firm, fee_tier=fee_tier)
    return link.command(message, "account")


def parse_funds(link: AdminLink, texts: Iterable[str]) -> list[tuple[wire.AssetReply, int]]:
    """Return (asset, units) of each ASSET=AMOUNT. Raises CommandError naming asset and limit."""
    assets = link.assets()
    funds = []
    for text in texts:
        symbol, equals, amount = text.partition("=")
        if not equals:
            raise CommandError(f"--fund {text}: must be ASSET=AMOUNT", ExitCode.USAGE)
        if symbol not in assets:
            known = ", ".join(sorted(assets)) or "none; add one with `bullring asset add`"
            raise CommandError(f"--fund {text}: unknown asset {symbol!r}; there are: {known}", ExitCode.BAD_INPUT)
        funds.append((assets[symbol], to_units(amount, assets[symbol].exponent, f"--fund {symbol}")))
    return funds


def credit(link: AdminLink, *, account: int, asset: wire.AssetReply, units: int) -> None:
    kind = wire.BalanceKind.DEPOSIT if units >= 0 else wire.BalanceKind.WITHDRAWAL
    message = wire.BalanceAdjust(amount=units, account_id=account, asset_id=asset.asset_id, kind=kind)
    link.command(message, f"{kind.name.lower()} of {from_units(units, asset.exponent)} {asset.symbol}")


def require_account(link: AdminLink, account: int) -> None:
    if not any(reply.account_id == account for reply in link.accounts()):
        raise CommandError(f"unknown account {account}; `bullring account list` shows them", ExitCode.BAD_INPUT)


def balances(link: AdminLink, account: int) -> dict[str, dict[str, str]]:
    assets = {reply.asset_id: reply for reply in link.assets().values()}
    return {
        assets[reply.asset_id].symbol: {
            "available": from_units(reply.available, assets[reply.asset_id].exponent),
            "held": from_units(reply.held, assets[reply.asset_id].exponent),
        }
        for reply in link.balances(account)
    }


def as_row(reply: wire.AccountReply) -> dict[str, object]:
    return {
        "account": reply.account_id,
        "stp_group": reply.stp_group_id,
        "firm": reply.firm_id,
        "fee_tier": reply.fee_tier,
        "open_orders": reply.open_orders,
    }
