"""What URLs lead to: a site that may be named, and the proxy on the way there."""

from __future__ import annotations

from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

import muxly

__all__ = ["checked_url", "proxy_of", "site"]


def site(url: str | httpx2.URL) -> str:
    """Scheme, host and port of a URL: what may be shown of one whose path may be a secret."""
    parts = httpx2.URL(url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{parts.host}{port}"


def checked_url(url: str | muxly.Secret) -> httpx2.URL:
    """A URL that requests can be made to.

    Raises:
        ConfigurationError: It is none; neither the message nor this frame shows it, for it may be a secret.
    """
    problem = _problem(_text(url))
    if problem is not None:
        raise muxly.ConfigurationError(problem, path=("url",))
    return httpx2.URL(_text(url))


def _text(url: str | muxly.Secret) -> str:
    return url if isinstance(url, str) else url.reveal()


def _problem(url: str) -> str | None:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        return f"this is no URL: {error}"
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return "this is no URL that begins with http:// or https:// and names a host"
    if parsed.userinfo:
        return "a user or password in the URL is sent nowhere and shows in logs; use basic or bearer"
    return None


def proxy_of(url: httpx2.URL) -> httpcore2.Proxy | None:
    """The proxy that the environment names for that URL, as curl and most programs take it.

    Raises:
        ConfigurationError: It names one that cannot be used.
    """
    named = getproxies()
    found = named.get(url.scheme) or named.get("all")
    if not found or proxy_bypass(f"{url.host}:{url.port or ''}".rstrip(":")):
        return None
    proxy = _parsed(found if "://" in found else f"http://{found}")
    if proxy is None or proxy.scheme not in ("http", "https") or not proxy.host:
        kind = "that is no URL" if proxy is None else f"with {proxy.scheme}://, which is not supported"
        raise muxly.ConfigurationError(
            f"the environment names a proxy {kind}; use one with http:// or https://, or put {url.host} into NO_PROXY",
            path=("url",),
        )
    auth = (proxy.username, proxy.password) if proxy.userinfo else None
    return httpcore2.Proxy(str(proxy.copy_with(userinfo=b"")), auth=auth)


def _parsed(url: str) -> httpx2.URL | None:
    try:
        return httpx2.URL(url)
    except httpx2.InvalidURL:
        return None
