"""Failures of requests, in the store or on the way to it, as errors of the route."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import muxly
from muxly_routers import _failures
from muxly_routers._http import messages
from muxly_routers._http.messages import Redaction

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

__all__ = ["AbsentError", "ChangedError", "UnsupportedError", "error_of", "error_of_code"]


class AbsentError(muxly.RouteError):
    """There is no such object or upload."""


class ChangedError(muxly.RouteError):
    """The condition of a request does not hold: the object is there, or is another one by now."""


class UnsupportedError(muxly.RouteError):
    """The store does not know what a request asks for."""


# With these codes the same request may succeed later (Amazon S3 API reference, "Error responses").
_TRANSIENT = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_RIGHTS = (
    "give this identity s3:PutObject, s3:GetObject, s3:ListBucket, s3:DeleteObject, s3:AbortMultipartUpload and "
    "s3:ListBucketMultipartUploads there (and the use of the key, where the bucket is encrypted with one)"
)
_CREDENTIALS = "check access_key_id and secret_access_key, or where else the credentials come from"
_REGION = "set region to the one of the bucket"
_NEXT_STEP = {
    "AccessDenied": _RIGHTS,
    "AccountProblem": "the account has a problem: ask who pays for it",
    "AllAccessDisabled": _RIGHTS,
    "AuthorizationHeaderMalformed": _REGION,
    "EntityTooLarge": "make the route's batch smaller",
    "ExpiredToken": "the session token has expired: get a new one",
    "Forbidden": _RIGHTS,
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidBucketName": "correct the option bucket",
    "InvalidObjectState": "the object lies in an archive; restore it or give the route another prefix",
    "InvalidStorageClass": "correct the option storage_class",
    "InvalidToken": _CREDENTIALS,
    "KMS.DisabledException": "enable the key, or correct the option kms_key_id",
    "KMS.NotFoundException": "correct the option kms_key_id",
    "MethodNotAllowed": "the store does not allow this; see its documentation",
    "NoSuchBucket": "create the bucket, or correct the option bucket",
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "set the clock of this machine right",
    "SignatureDoesNotMatch": _CREDENTIALS,
    "TokenRefreshRequired": "the session token has expired: get a new one",
    "QuotaExceeded": "make room there; the next run delivers what is pending",
    "XMinioStorageFull": "make room there; the next run delivers what is pending",
}
_HARMLESS = Redaction()
# Longer than is waited for at once: only the runner's next attempt has new credentials.
_RENEWED_SECONDS = 5.0
_EXPIRED = {"ExpiredToken", "TokenRefreshRequired"}
_BY_STATUS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound"}


def error_of(error: Exception, doing: str, uri: str, renew: Callable[[], None] | None = None) -> muxly.MuxlyError:
    """The error of the route behind an error of the SDK.

    Args:
        error: What the SDK raised.
        doing: Such as ``"write"``.
        uri: Such as ``"s3://bucket/key"``.
        renew: Has expired credentials looked for anew by the next attempt, if they can be.
    """
    from botocore import exceptions, parsers

    if isinstance(error, exceptions.ClientError):
        return _of_store(error, doing, uri, renew)
    if isinstance(error, parsers.ResponseParserError):
        return muxly.RetryableError(
            f"cannot {doing} {uri}: the answer is not one of an S3 store: {_HARMLESS.shown(str(error))}"
        )
    return _of_sdk(error, doing, uri)


def error_of_code(code: str, text: str, doing: str, uri: str) -> muxly.MuxlyError:
    """The error of the route behind a code in an answer that is about several objects."""
    message = f"cannot {doing} {uri}: {_answer_text(text, code)}"
    return muxly.RetryableError(message) if _is_transient(code, 0) else _permanent(message, code, 0)


def _of_store(error: ClientError, doing: str, uri: str, renew: Callable[[], None] | None) -> muxly.MuxlyError:
    answer: Any = error.response
    facts = answer.get("ResponseMetadata", {})
    status = facts.get("HTTPStatusCode", 0)
    code = str(answer.get("Error", {}).get("Code", ""))
    code = _BY_STATUS.get(status, code) if code.isdecimal() else code
    message = f"cannot {doing} {uri}: {_answer_text(answer.get('Error', {}).get('Message', ''), code, status)}"
    if status == 412 or code == "PreconditionFailed":
        return ChangedError(message)
    if code in ("NoSuchKey", "NoSuchUpload", "NotFound"):
        return AbsentError(message)
    if code in _EXPIRED and renew is not None:
        renew()
        return muxly.RetryableError(f"{message}; {_NEXT_STEP[code]}", retry_after=_RENEWED_SECONDS)
    if _is_transient(code, status):
        return muxly.RetryableError(message, retry_after=messages.parse_retry_after(_header(facts)))
    if status == 501 or code == "NotImplemented":
        return UnsupportedError(f"{message}; the store lacks something that this router needs")
    return _permanent(message, code, status)


def _permanent(message: str, code: str, status: int) -> muxly.RouteError:
    step = _NEXT_STEP.get(code) or ("see what the store means by that" if status != 403 else _RIGHTS)
    return muxly.RouteError(f"{message}; {step}")


def _answer_text(text: Any, code: str, status: int = 200) -> str:
    message = _HARMLESS.shown(str(text)) or "the store refuses"
    return f"{message} ({_HARMLESS.shown(code) or 'no code'}, HTTP {status})"


def _is_transient(code: str, status: int) -> bool:
    return code in _TRANSIENT or status in (408, 429) or (status >= 500 and status != 501)


def _header(facts: Any) -> str | None:
    headers = facts.get("HTTPHeaders", {})
    return headers.get("retry-after") if isinstance(headers, dict) else None


def _of_sdk(error: Exception, doing: str, uri: str) -> muxly.MuxlyError:
    from botocore import exceptions

    if isinstance(error, exceptions.HTTPClientError) and isinstance(own := error.kwargs.get("error"), muxly.MuxlyError):
        # Raised where the connection is made, or where the bytes come from.
        return type(own)(f"cannot {doing} {uri}: {_failures.with_next_step(str(own))}")
    message = f"cannot {doing} {uri}: {error}"
    if isinstance(error, exceptions.SSLError):
        return muxly.RouteError(f"{message}; set ca_bundle to the certificates that the store is to be trusted by")
    passing = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    )
    if isinstance(error, passing):
        return muxly.RetryableError(f"cannot {doing} {uri}: {_failures.with_next_step(str(error))}")
    return muxly.RouteError(f"{message}; {_step(error)}")


def _step(error: Exception) -> str:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "give access_key_id and secret_access_key, a profile, the usual AWS_ variables, or anonymous: true"
    if isinstance(error, exceptions.ParamValidationError):
        return "correct the option that this names"
    return "see whether the options of this route are right"
