"""The sequencer: which frames it takes, and which part of it judges them."""

from __future__ import annotations

from typing import Any

from ringbuf.wire.messages import (
    MassCancelRequest,
    NewOrderSingle,
    OrderAmendRequest,
    OrderCancelRequest,
    OrderDetails,
    OrderListRequest,
    OrderReplaceRequest,
    Quote,
    RejectCode,
    Sequence,
    Tick,
)
from tests.oracle.administration import ADMIN_MESSAGES
from tests.oracle.choices import GROUP_FRAMES_MAX
from tests.oracle.filters import OrderRequest, Refusal
from tests.oracle.lines import Session
from tests.oracle.records import ALL_MATCHERS, ModelError, Record
from tests.oracle.settlement import Settlement
from tests.oracle.tables import ADMIN_ACCOUNT as ADMIN_ACCOUNT
from tests.oracle.tables import ADMIN_SESSION as ADMIN_SESSION

# Linked frames with their numbers; one frame is a command of its own.
Frames = list[tuple[int, Any]]


class Sequencer(Settlement):
    """One command at a time: admitted into `log`, refused, or not taken at all."""

    def admit(self, session_id: int, frames: Frames, stamp_ns: int, age_us: int = 0) -> None:
        session = self.sessions[session_id]
        if not session.is_bound:
            return
        first, message = frames[0]
        if isinstance(message, Sequence):
            session.last_seq = max(session.last_seq, message.next_seq_no - 1)
            return
        numbers = [number for number, _ in frames]
        is_whole = numbers == list(range(first, first + len(frames))) and first == session.last_seq + 1
        if len(frames) == 1:
            if self.takes(session, first):
                self.admit_frame(session, first, message, stamp_ns, age_us)
        elif is_whole and self.is_group([message for _, message in frames]):
            session.last_seq = numbers[-1]
            self.admit_group(session, frames, stamp_ns, age_us)
        else:
            for number, message in frames:
                if self.takes(session, number):
                    self.refuse_frame(session, number, message, RejectCode.INVALID_GROUP)

    def takes(self, session: Session, seq_num: int) -> bool:
        """Return True if this is the session's next number; tell of a gap."""
        expected = session.last_seq + 1
        if seq_num > expected:
            gap = {"from_seq_no": expected, "count": seq_num - expected}
            self.replies.append((session.session_id, "NotApplied", gap))
        if seq_num != expected:
            return False
        session.last_seq = seq_num
        return True

    def tick(self, now_ns: int, stamp_ns: int) -> None:
        """Write a tick: time for the matchers."""
        self.log.append(Record(ALL_MATCHERS, stamp_ns, 0, 0, Tick(now=now_ns)))

    def admit_frame(self, session: Session, seq_num: int, message: Any, stamp_ns: int, age_us: int) -> None:
        """Judge a command that is one frame."""
        if isinstance(message, NewOrderSingle):
            self.admit_order(OrderRequest(message, seq_num, stamp_ns, session, age_us=age_us))
        elif isinstance(message, OrderCancelRequest):
            self.admit_cancel(session, seq_num, message, stamp_ns)
        elif isinstance(message, OrderReplaceRequest):
            self.admit_replace(session, seq_num, message, stamp_ns)
        elif isinstance(message, OrderAmendRequest):
            self.admit_amend(session, seq_num, message, stamp_ns)
        elif isinstance(message, MassCancelRequest):
            self.admit_mass_cancel(session, seq_num, message, stamp_ns)
        elif isinstance(message, Quote):
            self.admit_quote(session, seq_num, message, stamp_ns)
        elif isinstance(message, OrderDetails | OrderListRequest):
            self.refuse_frame(session, seq_num, message, RejectCode.INVALID_GROUP)
        elif isinstance(message, ADMIN_MESSAGES):
            self.admit_admin(session, seq_num, message, stamp_ns)
        else:
            raise ModelError(f"the model does not know {type(message).__name__}")

    # -- groups ----------------------------------------------------------------------------------------------------

    def is_group(self, messages: list[Any]) -> bool:
        """Return True for what frames may be linked to: an order with details, a cancel-replace, an order list."""
        if len(messages) > GROUP_FRAMES_MAX:
            return False
        first, rest = messages[0], messages[1:]
        if isinstance(first, OrderDetails):
            return self.orders_in(messages) == 1
        if isinstance(first, OrderCancelRequest):
            return self.orders_in(rest) == 1
        return isinstance(first, OrderListRequest) and self.orders_in(rest) in (2, 3)

    def orders_in(self, messages: list[Any]) -> int:
        """Return how many orders these are, each with or without details before it; 0 for anything else."""
        count = 0
        has_details = False
        for message in messages:
            if isinstance(message, NewOrderSingle):
                count, has_details = count + 1, False
            elif isinstance(message, OrderDetails) and not has_details:
                has_details = True
            else:
                return 0
        return 0 if has_details else count

    def admit_group(self, session: Session, frames: Frames, stamp_ns: int, age_us: int) -> None:
        requests: list[OrderRequest] = []
        details: OrderDetails | None = None
        for number, message in frames:
            if isinstance(message, OrderDetails):
                details = message
            elif isinstance(message, NewOrderSingle):
                requests.append(OrderRequest(message, number, stamp_ns, session, details, age_us))
                details = None
        first, message = frames[0]
        if isinstance(message, OrderListRequest):
            self.admit_list(session, first, message, requests)
        elif isinstance(message, OrderCancelRequest):
            self.admit_cancel_replace(session, first, message, requests[0])
        else:
            self.admit_order(requests[0])

    def refuse_frame(self, session: Session, seq_num: int, message: Any, code: int) -> None:
        """Refuse one frame in the way its template is refused."""
        if isinstance(message, NewOrderSingle):
            self.reject_order(session, seq_num, message, code)
        elif isinstance(message, OrderCancelRequest | OrderReplaceRequest | OrderAmendRequest):
            self.reject_change(session, seq_num, message, Refusal(code))
        elif isinstance(message, MassCancelRequest):
            self.reject_mass_cancel(session, seq_num, message, code)
        elif isinstance(message, Quote):
            self.reject_quote(session, seq_num, message, code)
        elif isinstance(message, OrderListRequest):
            self.reject_list(session, seq_num, message, code)
        else:
            self.business_reject(session, seq_num, message, code)
