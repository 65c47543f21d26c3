"""Small objects of the router's own: which uploads were begun, and which delivery came last.

They lie in ``.muxly`` below the prefix, named by pipeline and route, so that each route looks after its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers._files import layout
from muxly_routers.s3 import failures

if TYPE_CHECKING:
    from muxly_routers.s3.bucket import Bucket

__all__ = ["WORK", "RouteJournal"]

WORK = ".muxly/"
_CREATE = {"IfNoneMatch": "*"}


class RouteJournal:
    """The notes of one route.

    Args:
        bucket: Where they lie.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket, self._run = bucket, bucket.run
        names = (layout.slug(self._run.pipeline), layout.slug(self._run.route or "route"))
        self._folder = f"{bucket.settings.prefix}{WORK}{'/'.join(names)}/"
        self._last: dict[str, tuple[str, str]] = {}

    def sweep(self) -> None:
        """Abort the uploads that older runs began and did not end."""
        try:
            for note in list(self._bucket.list_below(f"{self._folder}uploads/")):
                token = note.key.rpartition("/")[2].partition("-")[0]
                if token.isdecimal() and int(token) < self._run.token:
                    self._abort_noted(note.key)
        except muxly.RouteError as error:
            # Delivering needs less rights than sweeping, and is worth more.
            self._run.notice(
                muxly.Notice("uploads_not_swept", f"uploads that an older run left unfinished may stay: {error}")
            )

    def _abort_noted(self, note: str) -> None:
        content = self._bucket.get(note)
        if content is not None:
            self._abort_all(content[0].decode(errors="replace"))
            self._bucket.delete(note)

    def _abort_all(self, key: str) -> None:
        for upload in self._bucket.uploads(key):
            self._bucket.abort_upload(key, upload)

    def upload_begins(self, key: str) -> None:
        """Note an upload before it begins, so that whatever happens to it, a later run finds it."""
        try:
            self._put(self._upload(key), key, conditional=True)
        except (failures.ChangedError, failures.UnsupportedError):
            # An earlier attempt of this delivery ended without ending its upload.
            self._abort_all(key)
            self._put(self._upload(key), key, conditional=False)

    def upload_ended(self, key: str) -> None:
        """Forget an upload that was ended or aborted."""
        self._bucket.delete(self._upload(key))

    def _upload(self, key: str) -> str:
        return f"{self._folder}uploads/{self._run.token:012d}-{layout.text_hash(key, size=12)}"

    def record_delivery(self, stream: str, delivery: muxly.Delivery) -> bool:
        """Note which delivery of a stream begins; the one before is forgotten.

        A delivery may have objects in any folder, so that one with another content under the same id
        would find nothing in its way.

        Returns:
            Whether it has begun before.

        Raises:
            ConflictError: It has begun with another content.
        """
        key = f"{self._folder}last/{delivery.mode}/{layout.slug(stream)}"
        now = (layout.slug(delivery.id), layout.slug(delivery.digest))
        before = self._last.get(key) or self._read(key)
        if before[0] == now[0] and before[1] != now[1]:
            raise muxly.ConflictError(
                f"delivery {delivery.id} was written with another content before; it is not written again"
            )
        if before != now:
            self._put(key, " ".join(now), conditional=False)
        self._last[key] = now
        return before == now

    def _read(self, key: str) -> tuple[str, str]:
        content = self._bucket.get(key)
        id, _space, digest = content[0].decode(errors="replace").partition(" ") if content else ("", "", "")
        return id, digest

    def _put(self, key: str, text: str, *, conditional: bool) -> None:
        self._bucket.put(key, self._bucket.payload(text.encode()), {}, _CREATE if conditional else {})
