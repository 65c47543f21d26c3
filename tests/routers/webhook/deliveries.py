"""What the tests of the webhook router share: an opened router, records, and a look at requests."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import muxly
from muxly_routers.webhook import Webhook
from muxly_testing import delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.http_receiver import Receiver

__all__ = ["ORDERS", "Marks", "opened", "orders", "sent"]

ORDERS = muxly.Stream("orders", "id")


class Marks(list[int]):
    """What a router marked, one after another."""


def orders(count: int, *, id: str = "01ORDERS", marks: Marks | None = None, **facts: Any) -> muxly.Delivery:
    """A delivery of so many small records."""
    records = [{"id": number, "name": f"order {number}"} for number in range(count)]
    on_mark = (lambda count: None) if marks is None else marks.append
    return delivery(records, ORDERS, id=id, batch_records=7, on_mark=on_mark, **facts)


@contextlib.contextmanager
def opened(receiver: Receiver | str, run: muxly.Run | None = None, **options: Any) -> Iterator[Webhook]:
    """A router that is opened, and closed at the end."""
    url = receiver if isinstance(receiver, str) else receiver.url
    active = run or muxly.Run("01RUN", "daily", route="hook")
    router = Webhook(url=muxly.Secret(url), **options)
    try:
        router.open(active)
        yield router
    finally:
        router.close()
        active.end()


def sent(receiver: Receiver) -> list[list[int]]:
    """The ids of the records in each request that came in, whatever was answered."""
    return [[record["id"] for record in one.json()] for one in receiver.seen]
