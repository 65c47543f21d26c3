"""Files in remote stores, through fsspec."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from muxly.errors import ConfigurationError
from muxly_connector_file import _pattern
from muxly_connector_file._seen import FoundFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VERSIONS = ("ETag", "etag", "version_id", "mtime", "LastModified", "last_modified", "modified", "created")


class RemoteFiles:
    """Finds and opens files below a URL.

    Args:
        url: Any URL of the store; says which one it is.
        storage: What the store's fsspec class takes: a region, an endpoint.

    Raises:
        ConfigurationError: fsspec, or the package for this kind of URL, is not installed.
    """

    def __init__(self, url: str, storage: Mapping[str, Any]) -> None:
        try:
            import fsspec

            self._store = fsspec.core.url_to_fs(url, **storage)[0]
        except ImportError as error:
            raise ConfigurationError(
                f"reading {url.split('://', maxsplit=1)[0]}:// needs a package that is not installed ({error}); "
                'run: pip install "muxly-connector-file[remote]" and the fsspec package of the store',
                path=("path",),
            ) from error
        except ValueError as error:
            raise ConfigurationError(f"{url!r} cannot be used: {error}", path=("path",)) from error

    def absolute(self, path: str) -> str:
        """The path inside the store."""
        return str(self._store._strip_protocol(path))

    def kind(self, path: str) -> str:
        """``"file"``, ``"folder"`` or ``"missing"``."""
        if self._store.isfile(path):
            return "file"
        return "folder" if self._store.isdir(path) else "missing"

    def find(self, base: str, pattern: str, folder: str | None = None) -> Iterator[FoundFile]:
        """Files below a folder whose relative path matches; see ``LocalFiles.find``."""
        matches = _pattern.compile_pattern(pattern).match
        deepest = _pattern.depth(pattern) if folder is None else 0
        start = f"{base}/{folder}" if folder else base
        depth = None if deepest is None else deepest + 1
        self._store.invalidate_cache()
        for path, facts in sorted(self._store.find(start, maxdepth=depth, detail=True).items()):
            relative = path[len(base) :].lstrip("/")
            hidden = any(part.startswith(".") for part in relative.split("/"))
            if not hidden and matches(relative):
                yield _found(relative, path, facts)

    def look(self, path: str, id: str) -> FoundFile | None:
        """The file as it is now; None if it is not there."""
        self._store.invalidate_cache()
        try:
            return _found(id, path, self._store.info(path))
        except FileNotFoundError:
            return None

    def open(self, path: str) -> BinaryIO:
        """Open for reading."""
        opened: BinaryIO = self._store.open(path, "rb")
        return opened


def _found(id: str, path: str, facts: Mapping[str, Any]) -> FoundFile:
    version = next((facts[key] for key in _VERSIONS if facts.get(key) is not None), "")
    # Some stores give a time as a datetime in one answer and as a number in another.
    text = str(version.timestamp() if isinstance(version, datetime) else version)
    return FoundFile(id=id, path=path, size=facts.get("size") or 0, version=text)
