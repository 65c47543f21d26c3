"""Groups of options of the router ``webhook``, and checks of its options that look at several."""

from __future__ import annotations

from typing import Any, Literal

import attrs

import muxly
from muxly_routers._templates import Template
from muxly_routers.webhook import headers as header_rules
from muxly_routers.webhook.responses import pointer_parts

__all__ = ["Basic", "Hmac", "check_envelope", "check_one_credential", "check_pointer", "check_template"]


def check_template(instance: Any, attribute: Any, value: Any) -> None:
    """Whether it is a template."""
    if value is not None:
        Template.parse(value)


def check_pointer(instance: Any, attribute: Any, value: str | None) -> None:
    """Whether it is a JSON pointer."""
    if value is not None:
        pointer_parts(value)


def check_envelope(instance: Any, attribute: Any, value: str | None) -> None:
    """Whether there is an array to put into it."""
    if value is not None and instance.body != "array":
        raise ValueError(f"envelope is the key of an array, and body is {instance.body}; leave one of them out")


def check_one_credential(instance: Any, attribute: Any, value: Any) -> None:
    """Whether every header has one value, Authorization too."""
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


class Basic(muxly.Options):
    """A user and a password (RFC 7617)."""

    user: str = muxly.option("Name of the user.")
    password: muxly.Secret = muxly.option("The password.")


class Hmac(muxly.Options):
    """A signature in a header of its own, for receivers that do not know Standard Webhooks."""

    secret: muxly.Secret = muxly.option("The key, as text.")
    header: str = muxly.option("Header of the signature.", validator=header_rules.check_name)
    algorithm: Literal["sha256", "sha512"] = muxly.option("Digest of the HMAC.", default="sha256")
    encoding: Literal["hex", "base64"] = muxly.option("How the digest is written.", default="hex")
    prefix: str = muxly.option(
        "Stands before the digest, such as sha256=.", default="", validator=header_rules.check_text
    )
    signs: Literal["body", "timestamp.body", "id.timestamp.body"] = muxly.option(
        "What is signed; the parts are joined by dots.", default="body"
    )
    timestamp_header: str | None = muxly.option(
        "Header of the timestamp, seconds from 1970, beside webhook-timestamp.",
        default=None,
        validator=attrs.validators.optional(header_rules.check_name),
    )
    id_header: str | None = muxly.option(
        "Header of the id, beside webhook-id.",
        default=None,
        validator=attrs.validators.optional(header_rules.check_name),
    )
