"""One bucket: the requests that the router makes, each tried a few times at once where that may help."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from urllib.parse import urlsplit

from attrs import Factory, field, frozen

import muxly
from muxly_routers._files.layout import FileLayout
from muxly_routers.s3 import failures
from muxly_routers.s3.connections import StopGrace

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

__all__ = ["Bucket", "Checksum", "Checksummer", "Payload", "S3Settings", "StoredObject"]

Checksum = Literal["crc32", "sha256"]

# A part or a small object is quickly sent again; longer waits are the runner's, which tells people.
_AT_ONCE = muxly.Backoff(first_seconds=0.1, limit_seconds=1.0, attempts=3)
_LONGEST_WAIT_SECONDS = 2.0
_DELETED_AT_ONCE = 1000


@frozen(kw_only=True)
class S3Settings:
    """How and where the objects of a route are written; equal options give equal settings.

    Args:
        bucket: Its name, or the ARN of an access point.
        prefix: What all keys begin with; empty, or ending in a slash.
        files: Folders, names and encoding of the objects.
        single_put_bytes: Objects up to this size are sent in one request.
        part_bytes: Size of a part of a larger one.
        uploads: How many requests are made at a time for each stream.
        checksum: Which checksum the store verifies.
        object_options: Sent with each new object as they are: encryption, storage class.
    """

    bucket: str
    prefix: str
    files: FileLayout
    single_put_bytes: int
    part_bytes: int
    uploads: int
    checksum: Checksum
    object_options: tuple[tuple[str, str | bool], ...]


@frozen
class StoredObject:
    """What the store says about an object."""

    key: str
    size: int
    etag: str
    facts: Mapping[str, str] = field(factory=dict, hash=False)

    def has_facts(self, facts: Mapping[str, str]) -> bool:
        """Whether what is kept with the object says that it is this delivery's, with this content."""
        return all(self.facts.get(name) == value for name, value in facts.items())


@frozen
class Payload:
    """Bytes to be sent, as often as it takes.

    Args:
        body: Makes what the SDK reads them from.
        size: How many there are.
        digest: Their checksum, in the form of the bucket's settings.
    """

    body: Callable[[], Any]
    size: int
    digest: bytes


class Checksummer:
    """A checksum that grows with the bytes.

    Args:
        kind: Which one.
    """

    def __init__(self, kind: Checksum) -> None:
        self._sha256 = hashlib.sha256() if kind == "sha256" else None
        self._crc32 = 0

    def add(self, view: Any) -> None:
        """Take more bytes."""
        if self._sha256 is not None:
            self._sha256.update(view)
        else:
            self._crc32 = zlib.crc32(view, self._crc32)

    def value(self) -> bytes:
        """The checksum of all bytes so far, as it is sent."""
        return self._sha256.digest() if self._sha256 is not None else self._crc32.to_bytes(4, "big")


@frozen
class Bucket:
    """The bucket of a route.

    Args:
        client: The SDK's client.
        settings: The route's settings.
        run: The run, for waiting.
        renew: Has expired credentials looked for anew when the router is opened again, if they can be.
    """

    client: S3Client
    settings: S3Settings
    run: muxly.Run
    renew: Callable[[], None] | None = None
    _stop_grace: StopGrace = field(
        default=Factory(lambda self: StopGrace(lambda: self.run.stopping), takes_self=True), init=False, eq=False
    )

    def uri(self, key: str) -> str:
        """An object as people write it."""
        return f"s3://{self.settings.bucket}/{key}"

    def put(self, key: str, payload: Payload, facts: Mapping[str, str], condition: Mapping[str, str]) -> None:
        """Write a whole object.

        Args:
            key: Its key.
            payload: Its bytes.
            facts: Kept with it.
            condition: ``{"IfNoneMatch": "*"}``, ``{"IfMatch": etag}`` or nothing.

        Raises:
            ChangedError: The condition does not hold.
            UnsupportedError: The store knows no conditions.
        """
        self._ask(
            "write",
            key,
            self.client.put_object,
            Body=payload.body,
            ContentLength=payload.size,
            Metadata=dict(facts),
            **self._checksum(payload),
            **dict(self.settings.object_options),
            **condition,
        )

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key; None if nothing is."""
        try:
            answer = self._ask("look at", key, self.client.head_object)
        except failures.AbsentError:
            return None
        return StoredObject(key, answer["ContentLength"], answer["ETag"], answer.get("Metadata", {}))

    def get(self, key: str) -> tuple[bytes, str] | None:
        """A small object and its ETag; None if it is not there."""

        def read(**params: Any) -> tuple[bytes, str]:
            answer = self.client.get_object(**params)
            with answer["Body"] as body:
                return body.read(), answer["ETag"]

        try:
            content: tuple[bytes, str] = self._ask("read", key, read)
        except failures.AbsentError:
            return None
        return content

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine."""
        self._ask("delete", key, self.client.delete_object)

    def delete_all(self, keys: Sequence[str]) -> None:
        """Delete objects, a thousand in a request.

        Raises:
            RetryableError: One of them was not deleted this time.
            RouteError: One of them cannot be deleted.
        """
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = keys[start : start + _DELETED_AT_ONCE]
            answer = self._ask(
                "delete objects like",
                some[0],
                lambda Key, **params: self.client.delete_objects(**params),  # noqa: N803
                Delete={"Objects": [{"Key": key} for key in some], "Quiet": True},
            )
            for problem in answer.get("Errors", [])[:1]:
                uri = self.uri(problem.get("Key", ""))
                raise failures.error_of_code(problem.get("Code", ""), problem.get("Message", ""), "delete", uri)

    def list_below(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so, in the order of their keys."""
        more: dict[str, str] = {}
        while True:
            answer = self._ask("list", prefix, self._list, **more)
            for entry in answer.get("Contents", []):
                yield StoredObject(entry["Key"], entry["Size"], entry.get("ETag", ""))
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _list(self, Key: str, **params: Any) -> Any:  # noqa: N803
        return self.client.list_objects_v2(Prefix=Key, **params)

    def begin_upload(self, key: str, facts: Mapping[str, str]) -> str:
        """Begin an object that comes in parts; its id."""
        answer = self._ask(
            "begin to write",
            key,
            self.client.create_multipart_upload,
            Metadata=dict(facts),
            ChecksumAlgorithm=self.settings.checksum.upper(),
            **dict(self.settings.object_options),
        )
        return str(answer["UploadId"])

    def put_part(self, key: str, upload: str, number: int, payload: Payload) -> dict[str, Any]:
        """Send a part; what names it at the end."""
        checksum = self._checksum(payload)
        answer = self._ask(
            f"write part {number} of",
            key,
            self.client.upload_part,
            Body=payload.body,
            ContentLength=payload.size,
            UploadId=upload,
            PartNumber=number,
            **checksum,
        )
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def end_upload(self, key: str, upload: str, parts: Sequence[Any], condition: Mapping[str, str]) -> None:
        """Let the parts be the object, in one step.

        Raises:
            ChangedError: The condition does not hold.
            AbsentError: The upload is not there: it was aborted, or an earlier request ended it.
        """
        self._ask(
            "finish",
            key,
            self.client.complete_multipart_upload,
            UploadId=upload,
            MultipartUpload={"Parts": list(parts)},
            **condition,
        )

    def abort_upload(self, key: str, upload: str) -> None:
        """Forget an upload and its parts; one that is not there is fine."""
        try:
            self._ask("give up", key, self.client.abort_multipart_upload, UploadId=upload)
        except failures.AbsentError:
            return

    def uploads(self, key: str) -> list[str]:
        """The ids of the uploads of that very key that were begun and not ended."""
        uploads: list[str] = []
        more: dict[str, str] = {}
        while True:
            answer = self._ask("list unfinished uploads of", key, self._uploads, **more)
            uploads += [upload["UploadId"] for upload in answer.get("Uploads", []) if upload["Key"] == key]
            if not answer.get("IsTruncated"):
                return uploads
            more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def _uploads(self, Key: str, **params: Any) -> Any:  # noqa: N803
        return self.client.list_multipart_uploads(Prefix=Key, **params)

    def check_access(self) -> None:
        """Make sure that the bucket is there and may be used."""
        try:
            self._ask("look at", "", lambda Key, **params: self.client.head_bucket(**params))  # noqa: N803
        except failures.AbsentError as error:
            raise muxly.RouteError(f"{error}; create the bucket, or correct the option bucket") from error

    @property
    def is_of_aws(self) -> bool:
        """Whether it is a bucket of AWS itself, also where the environment names another endpoint."""
        host = urlsplit(self.client.meta.endpoint_url).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def payload(self, content: bytes | bytearray) -> Payload:
        """Bytes to be sent to this bucket."""
        checksum = Checksummer(self.settings.checksum)
        checksum.add(content)
        return Payload(lambda: content, len(content), checksum.value())

    def _checksum(self, payload: Payload) -> dict[str, str]:
        return {f"Checksum{self.settings.checksum.upper()}": base64.b64encode(payload.digest).decode()}

    def _ask(self, doing: str, key: str, operation: Callable[..., Any], **params: Any) -> Any:
        """Make a request, and again where it may work a moment later.

        Raises:
            MuxlyError: It did not.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        for attempt in range(1, _AT_ONCE.attempts + 1):
            body = {"Body": params["Body"]()} if "Body" in params else {}
            try:
                with self._stop_grace.request():
                    return operation(Bucket=self.settings.bucket, Key=key, **{**params, **body})
            except (BotoCoreError, ClientError, ResponseParserError) as error:
                failure = failures.error_of(error, doing, self.uri(key), self.renew)
                if not _again(failure, attempt):
                    raise failure from error
                wait = _AT_ONCE.wait(attempt, retry_after=failure.retry_after)
            self.run.sleep(wait)
        raise AssertionError("the last attempt returns or raises")


def _again(failure: muxly.MuxlyError, attempt: int) -> TypeGuard[muxly.RetryableError]:
    """Whether to try again at once, and not only when the runner does."""
    return (
        isinstance(failure, muxly.RetryableError)
        and not _AT_ONCE.spent(attempt)
        and (failure.retry_after or 0) <= _LONGEST_WAIT_SECONDS
    )
