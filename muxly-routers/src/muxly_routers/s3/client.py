"""Clients of the store, which load the SDK when there is something to write."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

import muxly
from muxly_routers._failures import needs

if TYPE_CHECKING:
    from botocore.session import Session
    from types_boto3_s3.client import S3Client

__all__ = ["Clients", "S3Access", "S3Role"]

_CONNECTIONS = 32


@frozen(kw_only=True)
class S3Role:
    """A role to assume."""

    arn: str
    external_id: muxly.Secret | None
    session_name: str


@frozen(kw_only=True)
class S3Access:
    """How the store is reached; equal ways share one client.

    Args:
        guarded: Whether somebody else than the operator says so.
    """

    region: str | None
    endpoint_url: str | None
    addressing_style: str
    ca_bundle: Path | None
    timeout_seconds: float
    profile: str | None
    access_key_id: str | None
    secret_access_key: muxly.Secret | None
    session_token: muxly.Secret | None
    role: S3Role | None
    anonymous: bool
    guarded: bool


class Clients:
    """One client for each way to reach a store, since making one costs more than many requests; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[S3Access, S3Client] = {}

    def get(self, access: S3Access) -> S3Client:
        """The client.

        Raises:
            PluginError: The SDK is not installed.
            ConfigurationError: The options name no region, a profile that is not there, an endpoint that
                the SDK does not take, or the like.
        """
        with self._lock:
            if access not in self._clients:
                self._clients[access] = _client(access)
            return self._clients[access]

    def forget(self, access: S3Access) -> None:
        """Make a new one next time, with credentials that are looked for anew."""
        with self._lock:
            self._clients.pop(access, None)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            from muxly_routers.s3 import connections  # loads the SDK, as each of them did

            connections.close_client(client)


def _client(access: S3Access) -> S3Client:
    with needs("s3"):
        import botocore.exceptions
    try:
        return _create(access)
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise muxly.ConfigurationError(f"the options of the router s3 lead to no client: {error}") from error


def _create(access: S3Access) -> S3Client:
    # boto3 and its transfers are not used: without them the import takes two thirds of the time.
    import botocore.config
    import botocore.session
    from botocore import UNSIGNED

    from muxly_routers._http.egress import Guard
    from muxly_routers.s3 import connections

    session = botocore.session.Session(profile=access.profile)
    session.register_component("data_loader", _loader(session))
    if access.role is not None:
        _assume(session, access.role, access)
    s3: Any = {"addressing_style": access.addressing_style}
    if not (access.endpoint_url or "https:").startswith("http:"):
        # Over TLS the checksum protects the body; hashing it a second time would only cost time.
        s3["payload_signing_enabled"] = False
    config = botocore.config.Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        signature_version=UNSIGNED if access.anonymous else None,
        # Also the one for sending; connecting has its own, where connections are made.
        connect_timeout=access.timeout_seconds,
        read_timeout=access.timeout_seconds,
        proxies={} if access.guarded else None,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # Each object is sent with a checksum of ours in a header: stores that know no trailers take it too.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=s3,
    )
    client: Any = session.create_client(
        "s3",
        region_name=access.region,
        endpoint_url=access.endpoint_url,
        verify=str(access.ca_bundle) if access.ca_bundle is not None else None,
        config=config,
        **({} if access.role is not None else _keys(access)),
    )
    connections.guard_client(client, Guard.of_machine(on=access.guarded))
    return client  # type: ignore[no-any-return]


def _loader(session: Session) -> Any:
    """A loader of the SDK's own files that does not look into the folders of all 400 services, twice.

    That is a quarter of the time that making a client takes.
    """
    from botocore.loaders import create_loader

    loader: Any = create_loader(session.get_config_variable("data_path"))
    # A folder for each service, which is all that is asked of this list; what is missing in one is found out later.
    folders = [Path(path) for path in loader.search_paths]
    names = sorted({service.name for folder in folders if folder.is_dir() for service in folder.iterdir()})
    loader.list_available_services = lambda type_name: names
    return loader


def _keys(access: S3Access) -> dict[str, Any]:
    if access.access_key_id is None or access.secret_access_key is None:
        return {}
    return {
        "aws_access_key_id": access.access_key_id,
        "aws_secret_access_key": access.secret_access_key.reveal(),
        "aws_session_token": access.session_token.reveal() if access.session_token is not None else None,
    }


def _assume(session: Session, role: S3Role, access: S3Access) -> None:
    """Let the session get the role's credentials, again before they expire."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    if keys := _keys(access):
        session.set_credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"])
    source = session.get_credentials()
    if source is None:
        raise muxly.ConfigurationError(
            f"there are no credentials to assume the role {role.arn} with; give access_key_id and "
            "secret_access_key, a profile, or the usual AWS_ variables"
        )
    external = {"ExternalId": role.external_id.reveal()} if role.external_id is not None else {}
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=lambda service, **more: session.create_client(service, **{"region_name": access.region, **more}),
        source_credentials=source,
        role_arn=role.arn,
        extra_args={"RoleSessionName": role.session_name, **external},
    )
    # botocore has no public way to give a session credentials that renew themselves.
    private: Any = session
    private._credentials = DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
