"""What shows a receiver who we are: signatures, tokens, passwords; and keeping it out of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers._http import authorization
from muxly_routers._http.hidden import Redaction, parts_of, paths_of
from muxly_routers.webhook import signatures
from muxly_routers.webhook.headers import revealed
from muxly_routers.webhook.requests import RequestSigner

if TYPE_CHECKING:
    from muxly_routers.webhook import Webhook

__all__ = ["headers", "hidden", "signing"]


def signing(router: Webhook) -> RequestSigner:
    """How its requests are signed.

    Raises:
        ConfigurationError: A secret is not of the kind that it should be.
    """
    try:
        keys = tuple(signatures.key_of(one) for one in router.signing_secrets)
    except ValueError as error:
        raise muxly.ConfigurationError(str(error), path=("signing_secrets",)) from None
    given = router.hmac
    if given is None:
        return RequestSigner(keys=keys)
    return RequestSigner(
        keys=keys,
        hmac=signatures.HmacSignature(
            key=given.secret.reveal().encode(),
            algorithm=given.algorithm,
            encoding=given.encoding,
            signs=given.signs,
            prefix=given.prefix,
        ),
        hmac_header=given.header,
        timestamp_header=given.timestamp_header,
        id_header=given.id_header,
    )


def headers(router: Webhook) -> dict[str, str]:
    """Its secret headers, by names in small letters.

    Raises:
        ConfigurationError: A secret cannot be the value of a header.
    """
    found = {name.lower(): revealed(one, "secret_headers", name) for name, one in router.secret_headers.items()}
    return {**found, **_authorization(router)}


def _authorization(router: Webhook) -> dict[str, str]:
    if router.bearer is not None:
        return {"authorization": f"Bearer {revealed(router.bearer, 'bearer')}"}
    if router.basic is not None:
        return {"authorization": authorization.basic(router.basic.user, router.basic.password)}
    return {}


def hidden(router: Webhook, url: str) -> Redaction:
    """What an answer may repeat and no message may show.

    Args:
        router: Whose secrets these are.
        url: Where a request goes.
    """
    secrets = [*router.signing_secrets, *router.secret_headers.values(), router.bearer]
    secrets += [None if router.basic is None else router.basic.password]
    secrets += [None if router.hmac is None else router.hmac.secret]
    texts = [one.reveal().strip() for one in secrets if one is not None]
    texts += [value.partition(" ")[2] for value in _authorization(router).values()]
    return Redaction.of([*texts, *paths_of(url), *parts_of(router.url.reveal())])
