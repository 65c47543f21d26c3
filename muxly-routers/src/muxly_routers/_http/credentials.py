"""Certificates and passwords; verification of certificates is never off."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import muxly

if TYPE_CHECKING:
    import ssl

__all__ = ["Basic", "Tls", "basic_authorization", "tls_context"]


class Basic(muxly.Options):
    """A user and a password (RFC 7617)."""

    user: str = muxly.option("Name of the user.")
    password: muxly.Secret = muxly.option("Password of the user.")


class Tls(muxly.Options):
    """Certificates, where those of the machine are not the right ones."""

    ca: Path | None = muxly.option(
        "PEM file of the authority, or of the self-signed certificate, to trust in place of the machine's.",
        default=None,
    )
    certificate: Path | None = muxly.option(
        "PEM file of the client certificate to show, with its chain; may hold the key too.", default=None
    )
    key: Path | None = muxly.option("PEM file of the client certificate's private key.", default=None)
    key_password: muxly.Secret | None = muxly.option("Password of the private key.", default=None)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The settings of TLS 1.2 or newer, with verification of certificate and name.

    Raises:
        ConfigurationError: A file is not there, or holds no certificate or key.
    """
    import ssl

    import httpcore2

    # Its default also finds the authorities of macOS, and of machines where OpenSSL looks elsewhere.
    ssl_context = httpcore2.default_ssl_context() if tls.ca is None else _context_trusting(tls.ca)
    ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        _load_client_certificate(ssl_context, tls.certificate, tls)
    elif tls.key is not None:
        raise muxly.ConfigurationError(
            "key is given without certificate; name its certificate too", path=("tls", "certificate")
        )
    return ssl_context


def _context_trusting(ca: Path) -> ssl.SSLContext:
    import ssl

    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise muxly.ConfigurationError(
            f"{ca} holds no certificate in PEM form: {_os_error_text(error)}", path=("tls", "ca")
        ) from None


def _load_client_certificate(ssl_context: ssl.SSLContext, certificate: Path, tls: Tls) -> None:
    import ssl

    # A function, because without a password OpenSSL asks the terminal and waits forever.
    password = "" if tls.key_password is None else tls.key_password.reveal()
    try:
        ssl_context.load_cert_chain(certificate, tls.key, password=lambda: password)
    except (OSError, ssl.SSLError) as error:
        raise muxly.ConfigurationError(
            f"{certificate} and its key cannot be used: {_os_error_text(error)}; give both in PEM form, and "
            "key_password if the key has one",
            path=("tls", "certificate"),
        ) from None


def _os_error_text(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def basic_authorization(user: str, password: muxly.Secret) -> str:
    """The value of ``Authorization`` for a name and a password (RFC 7617); as secret as the password."""
    return f"Basic {base64.b64encode(f'{user}:{password.reveal()}'.encode()).decode()}"
