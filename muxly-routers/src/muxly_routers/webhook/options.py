"""Options of the router ``webhook``: their checks, and templates of headers and URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import attrs

import muxly
from muxly_routers._templates import Template
from muxly_routers.webhook.sending import pointer_parts

__all__ = [
    "Hmac",
    "check_envelope",
    "check_headers",
    "check_name",
    "check_names",
    "check_one_credential",
    "check_pointer",
    "check_template",
    "check_text",
    "filled_headers",
    "filled_url",
    "revealed",
    "url_template",
]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TEXT = re.compile(r"[\x20-\x7e\t]*")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_OURS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "transfer-encoding",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
_IN_HEADERS = frozenset({"stream", "pipeline", "route", "delivery"})
_IN_URL = frozenset({"stream", "pipeline", "route"})


def check_name(instance: Any, attribute: Any, value: str) -> None:
    """Check that it is the name of a header that may be chosen.

    Raises:
        ValueError: It is not.
    """
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a header")
    if value.lower() in _OURS:
        raise ValueError(f"the header {value} is set by the router itself")


def check_text(instance: Any, attribute: Any, value: str) -> None:
    """Check that it may be the value of a header.

    Raises:
        ValueError: It holds a line end or another character that it must not.
    """
    if not _TEXT.fullmatch(value):
        raise ValueError(f"{value!r} holds a line end or another character that no header may have")


def revealed(secret: muxly.Secret, *path: str) -> str:
    """A secret that is to be the value of a header, without white space around it.

    Raises:
        ConfigurationError: It cannot be one; the message does not show it.
    """
    if not _TEXT.fullmatch(secret.reveal().strip()):
        raise muxly.ConfigurationError(
            "the secret holds a line end or another character that no header may have", path=path
        )
    return secret.reveal().strip()


def check_names(instance: Any, attribute: Any, value: Mapping[str, Any]) -> None:
    """Check that all keys are names of headers that may be chosen, each once."""
    for name in value:
        check_name(instance, attribute, name)
    names = [name.lower() for name in value]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"the header {twice[0]} is there twice")


def check_headers(instance: Any, attribute: Any, value: Mapping[str, str]) -> None:
    """Check that they are headers, and that their fields are names of the delivery."""
    check_names(instance, attribute, value)
    for name, text in value.items():
        check_text(instance, attribute, text)
        _check_fields(name, Template.parse(text), _IN_HEADERS)


def filled_headers(headers: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """The headers with the names of the delivery in place of their fields; odd characters of those are %-escaped."""
    return {name.lower(): str(Template.parse(text).render(facts, escape=_as_value)) for name, text in headers.items()}


def _as_value(name: str, before: str) -> str:
    return quote(name, safe=_PRINTABLE)


def url_template(url: muxly.Secret) -> Template:
    """A URL as a template.

    Raises:
        ConfigurationError: It is none, or has fields in its host; neither the message nor this frame shows it.
    """
    problem = _url_problem(url.reveal())
    if problem is not None:
        raise muxly.ConfigurationError(problem, path=("url",))
    return Template.parse(url.reveal())


def _url_problem(url: str) -> str | None:
    try:
        _check_fields("url", Template.parse(url), _IN_URL)
    except ValueError as error:
        return f"the URL is not a template: {error}"
    if re.match(r"[a-z]+://[^/?#]*[{}]", url):
        return "the host of the URL cannot contain a field"
    return None


def filled_url(url: Template, facts: Mapping[str, str]) -> str:
    """The URL with the names of the delivery in place of its fields, each as one part of the path or query.

    Raises:
        StreamError: A name cannot be such a part.
    """
    try:
        return str(url.render(facts, escape=_as_part))
    except ValueError as error:
        raise muxly.StreamError(f"{error}; leave the stream out, or write the URL without its name") from None


def _as_part(name: str, before: str) -> str:
    """A name as one part of a path; of nothing but dots it would mean another folder, also when escaped."""
    if not name.strip("."):
        raise ValueError(f"{name!r} cannot be a part of a URL")
    return quote(name, safe="")


def _check_fields(where: str, template: Template, known: frozenset[str]) -> None:
    unknown = sorted(template.fields - known)
    if unknown:
        raise ValueError(
            f"{where}: {{{unknown[0]}}} is not known here; there are "
            f"{', '.join(f'{{{field}}}' for field in sorted(known))}"
        )


def check_template(instance: Any, attribute: Any, value: Any) -> None:
    """Check that it is a template."""
    if value is not None:
        Template.parse(value)


def check_pointer(instance: Any, attribute: Any, value: str | None) -> None:
    """Check that it is a JSON pointer."""
    if value is not None:
        pointer_parts(value)


def check_envelope(instance: Any, attribute: Any, value: str | None) -> None:
    """Check that there is an array to put into it."""
    if value is not None and instance.body != "array":
        raise ValueError(f"envelope is the key of an array, and body is {instance.body}; leave one of them out")


def check_one_credential(instance: Any, attribute: Any, value: Any) -> None:
    """Check that every header has one value, Authorization included."""
    given = [name.lower() for name in (*instance.headers, *instance.secret_headers)]
    if instance.bearer is not None or value is not None:
        given.append("authorization")
    if instance.hmac is not None:
        of_hmac = (instance.hmac.header, instance.hmac.timestamp_header, instance.hmac.id_header)
        given += [name.lower() for name in of_hmac if name is not None]
    if instance.bearer is not None and value is not None:
        raise ValueError("bearer and basic are two values for the header Authorization; give one of them")
    twice = [name for name in given if given.count(name) > 1]
    if twice:
        raise ValueError(
            f"the header {twice[0]} is given twice: look at headers, secret_headers, bearer, basic and hmac"
        )


class Hmac(muxly.Options):
    """A signature in a header of its own, for receivers that do not know Standard Webhooks."""

    secret: muxly.Secret = muxly.option("The key, as text.")
    header: str = muxly.option("Header of the signature.", validator=check_name)
    algorithm: Literal["sha256", "sha512"] = muxly.option("Digest of the HMAC.", default="sha256")
    encoding: Literal["hex", "base64"] = muxly.option("How the digest is written.", default="hex")
    prefix: str = muxly.option("Stands before the digest, such as sha256=.", default="", validator=check_text)
    signs: Literal["body", "timestamp.body", "id.timestamp.body"] = muxly.option(
        "What is signed; the parts are joined by dots.", default="body"
    )
    timestamp_header: str | None = muxly.option(
        "Header of the timestamp, seconds from 1970, beside webhook-timestamp.",
        default=None,
        validator=attrs.validators.optional(check_name),
    )
    id_header: str | None = muxly.option(
        "Header of the id, beside webhook-id.",
        default=None,
        validator=attrs.validators.optional(check_name),
    )
