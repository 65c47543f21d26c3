"""Reading one stream into memory, without store, spool or routes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from muxly._ids import new_id
from muxly.batch import Batch, Rejected
from muxly.component import Run
from muxly.connector import Connector, Partition
from muxly.errors import ConfigurationError, RetryableError
from muxly.retry import Backoff, Retry
from muxly.stream import Stream
from muxly.suggest import suggest

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


def read(connector_or_name: Connector | str, stream: str, /, **options: Any) -> Reading:
    """Read one stream from its start, in one pass.

    ::

        muxly.read("file", "weather", path="data/*.csv").to_pandas()

    Args:
        connector_or_name: A connector, or the name of an installed one.
        stream: The stream's name.
        **options: The connector's options, if it is given by name.

    Raises:
        PluginError: No connector has that name, or it cannot be imported.
        ConfigurationError: An option is wrong, or the connector has no such stream.
    """
    return Reading(_connector(connector_or_name, options), stream)


def _connector(connector_or_name: Connector | str, options: dict[str, Any]) -> Connector:
    if isinstance(connector_or_name, Connector):
        if options:
            raise ConfigurationError("options can be given with a connector name, not with a connector object")
        return connector_or_name
    from muxly import _plugins

    kind = _plugins.load("connector", connector_or_name)
    try:
        made = kind(**options)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"connector {connector_or_name!r}: {error}") from error
    assert isinstance(made, Connector)
    return made


class Reading:
    """The records of one stream; every ``to_`` method reads the source once.

    Args:
        connector: Not opened; a private copy is.
        stream: The stream's name.
    """

    def __init__(self, connector: Connector, stream: str) -> None:
        self._connector, self._name = connector, stream
        self.rejected: list[Rejected] = []
        """Records that could not be read, in the pass before."""

    def to_arrow(self) -> pa.Table:
        """All records as one Arrow table, in the schema they grew to."""
        import pyarrow as pa

        from muxly._runner.schema import evolution

        tables = list(self._tables())
        if not tables:
            return pa.table({})
        schema = tables[-1].schema
        return pa.concat_tables([evolution.fit(table, schema) for table in tables])

    def to_pandas(self) -> pd.DataFrame:
        """All records as a pandas data frame; needs pandas."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """All records as a polars data frame; needs polars."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The records for DuckDB and everything else that speaks Arrow's PyCapsule interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _tables(self) -> Iterator[pa.Table]:
        """The batches in the stream's schema as it grows."""
        from muxly._runner.schema import evolution
        from muxly.pipeline import StreamRules

        self.rejected = []
        rules, schema = StreamRules(), None
        for batch in self._batches():
            table, unfit = batch.to_arrow(schema)
            self.rejected += [*batch.rejected, *unfit]
            if table.num_rows or schema is None:
                conformed = evolution.conform(table, schema, rules, stream=self._name)
                schema = conformed.schema
                self.rejected += conformed.rejected
                yield conformed.table

    def _batches(self) -> Iterator[Batch]:
        connector = copy.deepcopy(self._connector)
        run = Run(new_id(), "read")
        try:
            connector.open(run)
            stream = self._stream(list(connector.streams()))
            root = stream if stream.parent is None else self._stream(list(connector.streams()), stream.parent)
            plan = Retry(Backoff(), run.sleep).call(lambda: connector.plan(root, None))
            for partition in plan.partitions:
                for batch in _partition(run, connector, root, partition):
                    if (batch.stream or root.name) == self._name:
                        yield batch
        finally:
            connector.close()
            run.end()

    def _stream(self, offered: list[Stream], name: str | None = None) -> Stream:
        wanted = name or self._name
        for stream in offered:
            if stream.name == wanted:
                return stream
        names = [stream.name for stream in offered]
        near = suggest(wanted, names)
        hint = f'did you mean "{near}"?' if near else f"it has {', '.join(names) or 'none'}"
        raise ConfigurationError(f"the connector has no stream {wanted!r}; {hint}")


def _partition(run: Run, connector: Connector, stream: Stream, partition: Partition) -> Iterator[Batch]:
    """The batches of one partition; after a retryable error, from the last cursor that was handed on.

    What came after that cursor is held back until the next one, so that nothing comes twice.
    """
    retry, cursor = Retry(Backoff(), run.sleep), partition.cursor
    while True:
        held: list[Batch] = []
        try:
            for batch in connector.read(stream, partition, cursor):
                held.append(batch)
                if batch.cursor is not None and stream.sorted:
                    yield from held
                    held, cursor = [], batch.cursor
                    retry.start_over()
        except RetryableError as error:
            retry.wait(error)
        else:
            yield from held
            return
