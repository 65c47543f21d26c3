"""The router ``s3``: CSV, JSON Lines, Parquet and Arrow objects in a bucket of S3, or of a store that speaks it.

Each delivery becomes one object, ``<prefix>/<stream>/<delivery>.parquet``, or one in each partition folder it
touches. An object appears whole, or not at all, and is never overwritten; a repeat of a delivery finds its
objects by their keys and what is kept with them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

import muxly
from muxly_routers._files.layout import FileOptions
from muxly_routers._formats import Csv, Parquet
from muxly_routers._http import egress
from muxly_routers._lazy_output import LazyOutputRouter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from muxly_routers.s3.bucket import Bucket, S3Settings
    from muxly_routers.s3.client import Clients, S3Access
    from muxly_routers.s3.output import S3Output

__all__ = ["AssumeRole", "Csv", "Parquet", "S3"]

_MIB = 1024 * 1024
_BUCKET = re.compile(r"[a-z0-9][a-zA-Z0-9._-]{1,253}[a-zA-Z0-9]|arn:[A-Za-z0-9:/_-]+")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_ENDPOINT = re.compile(rf"https?://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?(?:/|$)")
_PREFIX = re.compile(r"[A-Za-z0-9_=~%+@,()!'*.-]+")


def _check_bucket(instance: Any, attribute: Any, value: str) -> None:
    if not _BUCKET.fullmatch(value):
        raise ValueError(
            f"bucket is the name of a bucket or the ARN of an access point, not {value!r}; what follows the name "
            "belongs in prefix"
        )


def _check_prefix(instance: Any, attribute: Any, value: str) -> None:
    for part in value.strip("/").split("/") if value.strip("/") else ():
        if not _PREFIX.fullmatch(part) or set(part) == {"."}:
            raise ValueError(f"prefix is made of names and slashes, such as lake/raw, not {value!r}")


def _check_url(instance: Any, attribute: Any, value: str | None) -> None:
    if value is None:
        return
    if not re.match(r"https?://[^/@\s]+(/|$)", value):
        raise ValueError("endpoint_url begins with http:// or https://, and holds no user or password")
    endpoint = _ENDPOINT.match(value)
    if endpoint is None or int(endpoint[1] or 1) not in range(1, 65536):
        raise ValueError(
            "endpoint_url names a host made of letters, digits, dots and hyphens, which is all that the SDK takes, or "
            f"an address, and perhaps a port after a colon: {value!r} does not"
        )


class AssumeRole(muxly.Options):
    """A role whose rights are used."""

    role_arn: str = muxly.option("ARN of the role, such as arn:aws:iam::123456789012:role/lake.")
    external_id: muxly.Secret | None = muxly.option("External id that the role asks for.", default=None)
    session_name: str = muxly.option("Name of the session, as logs show it.", default="muxly")


class S3(FileOptions, LazyOutputRouter["S3Output"]):
    """Writes records as objects into a bucket of S3, or of a store that speaks its protocol."""

    modes: ClassVar[frozenset[str]] = frozenset({"append", "overwrite", "replace"})
    promise: ClassVar[muxly.Promise] = "effectively_once"
    concurrency: ClassVar[int] = 4

    bucket: str = muxly.option("Name of the bucket, or ARN of an access point.", validator=_check_bucket)
    prefix: str = muxly.option("What all keys begin with, such as lake/raw.", default="", validator=_check_prefix)
    region: str | None = muxly.option(
        "Region of the bucket; by default the one that the environment or the profile names.", default=None
    )
    endpoint_url: str | None = muxly.option(
        "URL of a store other than AWS, such as https://minio.example:9000.", default=None, validator=_check_url
    )
    addressing_style: Literal["auto", "path", "virtual"] = muxly.option(
        "Where the bucket stands in a URL; auto is path for stores with an endpoint_url.", default="auto"
    )
    access_key_id: str | None = muxly.option(
        "Access key; by default what the environment, the profile or the machine's own role gives.", default=None
    )
    secret_access_key: muxly.Secret | None = muxly.option("Secret of the access key.", default=None)
    session_token: muxly.Secret | None = muxly.option("Token of a temporary access key.", default=None)
    profile: str | None = muxly.option("Profile in the AWS configuration files.", default=None)
    assume_role: AssumeRole | None = muxly.option("Role to assume with those credentials.", default=None)
    anonymous: bool = muxly.option("Send requests without credentials.", default=False)
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = muxly.option(
        "Encryption at rest; by default what the bucket has.", default=None
    )
    kms_key_id: str | None = muxly.option("Key for aws:kms; by default the account's own.", default=None)
    bucket_key: bool | None = muxly.option("Whether to use a bucket key, which saves calls of KMS.", default=None)
    storage_class: str | None = muxly.option("Storage class, such as STANDARD_IA.", default=None)
    checksum: Literal["crc32", "sha256"] = muxly.option(
        "Checksum that the store verifies of all that is sent.", default="crc32"
    )
    single_put_bytes: int = muxly.option(
        "Objects up to this size are sent in one request, larger ones in parts.",
        default=64 * _MIB,
        validator=attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(5 * 1024 * _MIB)),
    )
    part_bytes: int = muxly.option(
        "Size of a part, of which an object has 10000 at most.",
        default=8 * _MIB,
        validator=attrs.validators.and_(attrs.validators.ge(5 * _MIB), attrs.validators.le(5 * 1024 * _MIB)),
    )
    uploads: int = muxly.option(
        "Requests at a time for each stream.",
        default=4,
        validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(32)),
    )
    timeout_seconds: float = muxly.option(
        "How long the store may stay silent in a request.", default=60.0, validator=attrs.validators.gt(0)
    )
    ca_bundle: Path | None = muxly.option("File with the certificates to trust instead of the usual.", default=None)

    def open(self, run: muxly.Run) -> None:
        """Check the options against each other; the SDK is loaded when there is something to write.

        Raises:
            ConfigurationError: Options contradict each other.
            RouteError: The endpoint may not be reached from a pipeline that the operator did not write.
        """
        super().open(run)
        self._check_credentials()
        if run.guarded and self.access_key_id is None and not self.anonymous:
            raise muxly.ConfigurationError(
                "a pipeline that was not written by the operator does not get the credentials of this machine; give "
                "access_key_id and secret_access_key, or anonymous: true",
                path=("access_key_id",),
            )
        if self.endpoint_url is not None:
            egress.check_url(self.endpoint_url, egress.Guard.of_machine(on=run.guarded))

    def _check_credentials(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            missing = "access_key_id" if self.access_key_id is None else "secret_access_key"
            raise muxly.ConfigurationError("access_key_id and secret_access_key go together", path=(missing,))
        if self.session_token is not None and self.access_key_id is None:
            raise muxly.ConfigurationError("session_token goes with access_key_id", path=("session_token",))
        given = [
            name
            for name, value in (
                ("anonymous", self.anonymous),
                ("profile", self.profile),
                ("access_key_id", self.access_key_id),
            )
            if value
        ]
        if len(given) > 1 or (self.anonymous and self.assume_role is not None):
            raise muxly.ConfigurationError(
                "give one of anonymous, profile and access_key_id; assume_role goes with the latter two",
                path=(given[0],),
            )

    def check(self) -> Iterable[muxly.Notice]:
        """Whether the bucket is there and may be used."""
        try:
            self._bucket().check_access()
        except muxly.MuxlyError as error:
            yield muxly.Notice("bucket_not_usable", str(error), level="error")

    def _open_output(self) -> S3Output:
        # Loads pyarrow and the SDK, which a pipeline with another router does not need.
        from muxly_routers.s3.output import S3Output
        from muxly_routers.s3.publishing import ConditionalSupport

        store = f"{self.endpoint_url}/{self.bucket}"
        conditions = self._run.shared(f"muxly_routers.s3.conditions.{store}", ConditionalSupport)
        return S3Output(self._bucket(), conditions)

    def _bucket(self) -> Bucket:
        from muxly_routers.s3.bucket import Bucket
        from muxly_routers.s3.client import Clients

        access = self._access()
        clients: Clients = self._run.shared("muxly_routers.s3.clients", Clients)
        return Bucket(
            clients.get(access),
            self._settings(),
            self._run,
            renew=None if self.access_key_id is not None else lambda: clients.forget(access),
        )

    def _access(self) -> S3Access:
        from muxly_routers.s3.client import S3Access, S3Role

        role = self.assume_role
        # A store of one's own mostly has no DNS names for buckets, whatever the SDK expects.
        style = "path" if self.addressing_style == "auto" and self.endpoint_url is not None else self.addressing_style
        return S3Access(
            region=self.region or ("us-east-1" if self.endpoint_url is not None else None),
            endpoint_url=self.endpoint_url,
            addressing_style=style,
            ca_bundle=self.ca_bundle,
            timeout_seconds=self.timeout_seconds,
            profile=self.profile,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            session_token=self.session_token,
            role=None
            if role is None
            else S3Role(arn=role.role_arn, external_id=role.external_id, session_name=role.session_name),
            anonymous=self.anonymous,
            # What leads to AWS itself, no option can lead elsewhere.
            guarded=self._run.guarded and self.endpoint_url is not None,
        )

    def _settings(self) -> S3Settings:
        from muxly_routers.s3.bucket import S3Settings

        prefix = self.prefix.strip("/")
        options = {
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key_id,
            "BucketKeyEnabled": self.bucket_key,
            "StorageClass": self.storage_class,
        }
        return S3Settings(
            bucket=self.bucket,
            prefix=f"{prefix}/" if prefix else "",
            files=self._layout(),
            single_put_bytes=self.single_put_bytes,
            part_bytes=self.part_bytes,
            uploads=self.uploads,
            checksum=self.checksum,
            object_options=tuple((name, value) for name, value in options.items() if value is not None),
        )


@muxly.hookimpl
def muxly_router() -> type[S3]:
    """The router of this module."""
    return S3
