"""Reading one file: the right format, and every fault as an error that says what to do."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from muxly.batch import Batch, Rejected
from muxly.component import Notice
from muxly.errors import RetryableError, StreamError
from muxly_connector_file._format import Dialect, Source

if TYPE_CHECKING:
    import muxly
    from muxly_connector_file import File
    from muxly_connector_file._layout import Files
    from muxly_connector_file._seen import FoundFile

Format = Literal["csv", "jsonl", "parquet", "arrow"]
_REFUSED = {errno.EACCES, errno.EPERM}
_PASSING = {errno.EAGAIN, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH, errno.ESTALE, errno.ETIMEDOUT}


def read(
    options: File,
    files: Files,
    run: muxly.Run,
    planned: FoundFile,
    format: Format,
    columns: tuple[str, ...] | None,
    cursor: Any,
) -> Iterator[Batch]:
    """The records of one file.

    Args:
        options: The connector.
        files: Where the file is.
        run: The run.
        planned: The file as it was when the plan was made.
        format: Its format.
        columns: Columns to keep; None = all.
        cursor: A batch's cursor to go on from; None = the beginning.

    Raises:
        StreamError: The file cannot be read; says why.
        RetryableError: It may be readable later.
    """
    try:
        if not _is_as_planned(files, planned, run):
            return
        source = _source(options, files, run, planned, format, columns)
        reader: Callable[[Source, Any], Iterator[Batch]] = importlib.import_module(f"{__package__}._{format}").read
        yield from reader(source, cursor)
    except FileNotFoundError:
        yield _gone(planned)
    except OSError as error:
        raise _os_error(planned, error) from error
    except StreamError as error:
        if options.damaged == "stop":
            raise
        yield Batch(rejected=[Rejected(error.message, place=planned.id)])


def _is_as_planned(files: Files, planned: FoundFile, run: muxly.Run) -> bool:
    """Whether the file is still the planned one; a changed one is left to the next plan.

    A cursor in the middle of the old content says nothing about the new one, and the next plan,
    which the runner makes right after this one, reads the new content as a whole.
    """
    now = files.look(planned.path, planned.id)
    if now is None:
        raise FileNotFoundError(errno.ENOENT, "gone", planned.path)
    if (now.size, now.version) != (planned.size, planned.version):
        run.notice(Notice("file_changed", f"{planned.path} changed after it was planned; it is read by the next plan"))
        return False
    return True


def _gone(planned: FoundFile) -> Batch:
    reason = "the file vanished before all of it was read; if it comes back, it is read as a new one"
    return Batch(rejected=[Rejected(reason, place=planned.id)])


def _os_error(planned: FoundFile, error: OSError) -> StreamError | RetryableError:
    why = error.strerror or " ".join(str(error).split())
    if error.errno in _PASSING:
        return RetryableError(f"{planned.path} cannot be read just now: {why}")
    step = "grant read access to it" if error.errno in _REFUSED else "check the disk or share it is on"
    return StreamError(f"{planned.path} cannot be read: {why}; {step}")


def _source(
    options: File,
    files: Files,
    run: muxly.Run,
    planned: FoundFile,
    format: Format,
    columns: tuple[str, ...] | None,
) -> Source:
    from muxly_connector_file._types import arrow_type

    csv = options.csv
    delimiter = csv.delimiter or ("\t" if ".tsv" in planned.id.lower() else ",")
    return Source(
        name=planned.id,
        path=planned.path,
        files=files,
        types={name: arrow_type(kind) for name, kind in options.types.items()},
        columns=columns,
        compression=options.compression,
        encoding=options.encoding,
        block_bytes=options.block_bytes,
        record_bytes=max(options.record_bytes, options.block_bytes),
        batch_records=options.batch_records,
        dialect=Dialect(
            delimiter=delimiter.encode(),
            quote=csv.quote.encode(),
            header=csv.header,
            columns=tuple(csv.columns),
            null_values=tuple(csv.null_values),
        ),
        notice=run.notice,
    )
