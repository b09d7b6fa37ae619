"""`bullring session create|list`."""

from __future__ import annotations

from collections.abc import Sequence

from ringbuf.wire import messages as wire
from scripts.admin.account import require_account
from scripts.admin.link import AdminLink
from scripts.arguments import add_common, command_parser, config_of, emit, emit_one
from scripts.exit_codes import ExitCode

KINDS = {
    "order-entry": wire.SessionKind.ORDER_ENTRY,
    "drop-copy": wire.SessionKind.DROP_COPY,
    "privileged": wire.SessionKind.PRIVILEGED,
}


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("session", "Sessions: what a client logs on to; each has its own sequence numbers.")
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a session of an account")
    create.add_argument("--account", type=int, required=True, metavar="N")
    create.add_argument("--kind", choices=list(KINDS), default="order-entry")
    listing = actions.add_parser("list", help="list sessions")
    listing.add_argument("--account", type=int, default=0, metavar="N", help="only of this account")
    for action in (create, listing):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)

    with AdminLink.open(config_of(options)) as link:
        if options.action == "create":
            require_account(link, options.account)
            session = create_session(link, options.account, KINDS[options.kind])
            emit_one({"session": session, "account": options.account, "kind": options.kind}, as_json=options.json)
        else:
            replies = link.query(wire.SessionQuery(account_id=options.account), wire.SessionReply)
            emit([as_row(reply) for reply in replies], as_json=options.json, empty="no sessions")
    return ExitCode.OK


def create_session(link: AdminLink, account: int, kind: wire.SessionKind = wire.SessionKind.ORDER_ENTRY) -> int:
    return link.command(wire.SessionCreate(account_id=account, kind=kind), f"session of account {account}")


def as_row(reply: wire.SessionReply) -> dict[str, object]:
    kinds = {int(kind): name for name, kind in KINDS.items()}
    return {
        "session": reply.session_id,
        "account": reply.account_id,
        "kind": kinds.get(int(reply.kind), str(reply.kind)),
        "bound": bool(reply.bound),
        "source": reply.source,
        "last_incoming_seq_no": reply.last_incoming_seq_no,
    }
