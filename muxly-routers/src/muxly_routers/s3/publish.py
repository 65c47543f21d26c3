"""How an object gets its key without ever taking the place of one that is not meant."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import muxly
from muxly_routers.s3 import failures
from muxly_routers.s3.metadata import WORK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from muxly_routers.s3.bucket import Bucket, StoredObject

__all__ = ["ConditionalSupport", "Publisher"]

_CREATE = {"IfNoneMatch": "*"}


class ConditionalSupport:
    """What is known about a store's conditional requests; thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.supported: bool | None = None


class Publisher:
    """Publishes objects in a bucket.

    Args:
        bucket: The bucket.
        conditions: What is known about its store.
    """

    def __init__(self, bucket: Bucket, conditions: ConditionalSupport) -> None:
        self._bucket, self._conditions = bucket, conditions

    def create(self, key: str, facts: Mapping[str, str], send: Callable[[Mapping[str, str]], None]) -> None:
        """Publish where nothing is yet; what is there already with our content is as good.

        Args:
            key: Of the object.
            facts: That its content is known by.
            send: Publishes under a condition.

        Raises:
            ConflictError: Something else is there.
        """
        if self.conditional():
            try:
                send(_CREATE)
            except failures.ChangedError:
                self._check_content(self._bucket.head(key), key, facts)
            except failures.UnsupportedError:
                self._note_unconditional()
                self._create_unconditionally(key, facts, send)
        else:
            self._create_unconditionally(key, facts, send)

    def _create_unconditionally(
        self, key: str, facts: Mapping[str, str], send: Callable[[Mapping[str, str]], None]
    ) -> None:
        if not self.is_published(key, facts):
            send({})

    def has(self, key: str, facts: Mapping[str, str]) -> bool:
        """Whether an object is there with our content, and not another or none."""
        found = self._bucket.head(key)
        return found is not None and found.has_facts(facts)

    def is_published(self, key: str, facts: Mapping[str, str]) -> bool:
        """Whether an object is there with our content.

        Raises:
            ConflictError: Something else is there.
        """
        found = self._bucket.head(key)
        if found is not None:
            self._check_content(found, key, facts)
        return found is not None

    def _check_content(self, found: StoredObject | None, key: str, facts: Mapping[str, str]) -> None:
        if found is None:
            raise muxly.RetryableError(f"{self._bucket.uri(key)} was there, and is gone again")
        if not found.has_facts(facts):
            raise muxly.ConflictError(
                f"{self._bucket.uri(key)} is there already with other content, and is not overwritten; move it "
                "away, or give the route another prefix"
            )

    def replace(self, key: str, facts: Mapping[str, str], send: Callable[[Mapping[str, str]], None]) -> None:
        """Publish in place of what is there, and of nothing that comes there meanwhile.

        Raises:
            RetryableError: Something else came there meanwhile.
        """
        found = self._bucket.head(key)
        if found is not None and found.has_facts(facts):
            return
        if not self.conditional():
            send({})
            return
        try:
            send({"IfMatch": found.etag} if found is not None else _CREATE)
        except failures.ChangedError as error:
            if not self.has(key, facts):
                raise muxly.RetryableError(f"somebody else wrote {self._bucket.uri(key)} meanwhile") from error
        except failures.UnsupportedError:
            self._note_unconditional()
            send({})

    def conditional(self) -> bool:
        """Whether the store keeps conditions; a store that may not is tried once in a process."""
        with self._conditions.lock:
            if self._conditions.supported is None:
                self._conditions.supported = self._bucket.is_of_aws or self._probe()
                if not self._conditions.supported:
                    self._notify()
            return self._conditions.supported

    def _probe(self) -> bool:
        """Ask for an object not to be overwritten; a store that ignores conditions does so without a word."""
        key = f"{self._bucket.settings.prefix}{WORK}probe"
        try:
            for _ in range(2):
                self._bucket.put(key, self._bucket.payload(b"may be deleted\n"), {}, _CREATE)
        except failures.ChangedError:
            return True
        except failures.UnsupportedError:
            pass
        return False

    def _note_unconditional(self) -> None:
        with self._conditions.lock:
            if self._conditions.supported:
                self._conditions.supported = False
                self._notify()

    def _notify(self) -> None:
        self._bucket.run.notice(
            muxly.Notice(
                "no_conditional_writes",
                f"the store of bucket {self._bucket.settings.bucket} does not keep If-None-Match: a repeat looks "
                "whether its object is there before it writes the same bytes; let nobody else write below the prefix",
            )
        )
