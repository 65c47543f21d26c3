"""The tables of one stream of one route: each delivery is one transaction, each full read one exchange of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeVar

from attrs import frozen

import muxly
from muxly_routers.sql import names, write_modes
from muxly_routers.sql.deliveries import DeliveryLog, RecordOwner
from muxly_routers.sql.dialect import SqlDialect, SqlSession
from muxly_routers.sql.errors import translated_errors
from muxly_routers.sql.generations import TableGenerations
from muxly_routers.sql.names import TableName
from muxly_routers.sql.tables import ColumnMapping, KnownTables, TableShape
from muxly_routers.sql.write_modes import RecordFeed, TableWrite

__all__ = ["OpenDatabase", "SqlOptions", "StreamTables"]

T = TypeVar("T")

_APPLY = {
    "append": write_modes.append,
    "replace": write_modes.append,
    "upsert": write_modes.upsert,
    "overwrite": write_modes.overwrite,
}


class SqlOptions(Protocol):
    """The options of the router; ``muxly_routers.sql.Sql`` says what they mean."""

    schema: str | None
    table: str
    deletes: Literal["soft", "hard"]
    primary_keys: bool
    indexes: dict[str, list[list[str]]]
    fast_path: bool
    remember_seconds: float
    connect_seconds: int
    lock_seconds: int


@frozen
class OpenDatabase:
    """A connection, and what it knows of the database behind it.

    Args:
        session: The connection.
        dialect: Of the session.
        tables: What the session knows.
        where: The database, without credentials.
    """

    session: SqlSession
    dialect: SqlDialect
    tables: KnownTables
    where: str

    @contextmanager
    def transaction(
        self, prepare: Callable[[], T], stage: Callable[[T], object] = lambda prepared: None
    ) -> Iterator[T]:
        """A transaction, committed at the end; after an error, closing the session rolls it back.

        Where CREATE and ALTER are part of a transaction, tables that were made or changed are committed before any
        record is written: whoever needs or reads these tables too would otherwise wait for all records. Where they
        are not, they would commit the transaction themselves, so all of them come before it begins.

        Args:
            prepare: Makes the tables that are needed and missing; called again if it made some.
            stage: Makes what only this transaction needs, given what ``prepare`` returned.
        """
        if self.dialect.transactional:
            self.session.begin()
            prepared = prepare()
            if self.tables.take_changed():
                self.session.commit()
                self.session.begin()
                prepared = prepare()
            stage(prepared)
        else:
            prepared = prepare()
            stage(prepared)
            self.session.begin()
        yield prepared
        self.session.commit()


class StreamTables:
    """The tables that take one stream's records in one database.

    Args:
        database: The connection.
        options: Of the router.
        run: The run that delivers.
        stream: The stream.
    """

    def __init__(self, database: OpenDatabase, options: SqlOptions, run: muxly.Run, stream: muxly.Stream) -> None:
        self._database, self._options, self._token = database, options, run.token
        self._owner = RecordOwner(run.pipeline, run.route or "", stream.name)
        self._target = self._table_name()
        self._log = DeliveryLog(database.session, database.dialect, database.tables, self._target.schema)
        self._generations = TableGenerations(
            session=database.session,
            dialect=database.dialect,
            tables=database.tables,
            log=self._log,
            owner=self._owner,
            target=self._target,
        )

    def _table_name(self) -> TableName:
        values = {"stream": self._owner.stream, "route": self._owner.route, "pipeline": self._owner.pipeline}
        template = self._options.schema
        schema = None if template is None else names.fit(names.rendered(template, values), self._database.dialect)
        return self._database.tables.table_name(schema, names.rendered(self._options.table, values))

    def begin(self, generation: int) -> None:
        """Drop what older generations of the stream left."""
        if self._database.dialect.transactional:
            with self._database.transaction(lambda: self._generations.refuse_old(generation)):
                self._generations.begin(generation)
        else:
            self._generations.refuse_old(generation)
            self._generations.begin(generation)
        self._database.tables.invalidate()

    def complete(self, generation: int) -> None:
        """Make a generation visible, unless it is."""
        if self._database.dialect.transactional:
            with self._database.transaction(lambda: self._generations.prepare(generation)) as needed:
                if needed:
                    self._generations.show(generation)
        elif self._generations.prepare(generation):
            self._generations.show_in_steps(generation)
        self._database.tables.invalidate()

    def deliver(
        self, delivery: muxly.Delivery, make_feed: Callable[..., RecordFeed], pruned: set[str]
    ) -> muxly.Receipt:
        """Write records, id and receipt, in one transaction.

        The id comes first: of two runs that make the same delivery at once, the second fails, or waits for the
        first and then fails, before it has written a record.

        Args:
            delivery: The records.
            make_feed: Makes a feed of them, given its columns.
            pruned: Streams without old deliveries left in the log; this one is added when it has none.
        """
        receipt = muxly.Receipt()
        with self._database.transaction(lambda: self._prepared(delivery, make_feed), _open_stages) as prepared:
            if isinstance(prepared, muxly.Receipt):
                return prepared
            self._record(delivery, receipt)
            name = self._owner.stream
            if name not in pruned and self._log.prune(self._owner, self._options.remember_seconds):
                pruned.add(name)
            for write in prepared:
                _APPLY[delivery.mode](write)
                write_modes.clear_stages(write)
        return receipt

    def _record(self, delivery: muxly.Delivery, receipt: muxly.Receipt) -> None:
        try:
            with translated_errors(self._database.dialect, self._database.where):
                self._log.record(delivery, self._owner, receipt)
        except muxly.RejectedError as error:
            raise muxly.RetryableError(
                f"{self._database.where}: another run makes the same delivery: {error}"
            ) from None

    def _prepared(
        self, delivery: muxly.Delivery, make_feed: Callable[..., RecordFeed]
    ) -> list[TableWrite] | muxly.Receipt:
        """The write to make, with its tables ready; none if there is nothing to make a table of.

        Returns:
            The receipt, if the delivery was made before.
        """
        if (receipt := self._log.receipt(delivery)) is not None:
            return receipt
        self._log.prepare()
        target, shape, tables = self._target_of(delivery), self._shape(delivery), self._database.tables
        tables.reread_columns(target)
        wanted = tables.map_columns(target, delivery.schema, keyed=shape.keyed)
        if not wanted and not any(batch.num_rows for batch in delivery.batches()):
            return []
        try:
            with translated_errors(self._database.dialect, self._database.where):
                write = self._write(target, tables.ensure(target, wanted, shape), delivery, make_feed)
                write_modes.prepare(write, shape)
        except muxly.RejectedError as error:  # of existing rows, and no record's fault
            raise muxly.StreamError(
                f"{self._database.where}: the table {target.name!r} cannot be made ready for {delivery.mode}: {error}; "
                "change the rows that are in the way, or rename the table"
            ) from None
        return [write]

    def _target_of(self, delivery: muxly.Delivery) -> TableName:
        """The table that takes the records."""
        if delivery.mode != "replace":
            return self._target
        assert delivery.generation is not None
        self._generations.refuse_old(delivery.generation, filling=True)
        return self._generations.table_of(delivery.generation)

    def _shape(self, delivery: muxly.Delivery) -> TableShape:
        stream, upsert = delivery.stream, delivery.mode == "upsert"
        if upsert and not stream.primary_key:
            raise muxly.StreamError(
                f"stream {stream.name!r} has no primary key, which upsert needs; name one with primary_key: "
                "in the pipeline's streams, or choose mode: append"
            )
        indexes = [*self._options.indexes.get(stream.name, ())]
        if delivery.mode == "overwrite":
            indexes.append([*stream.overwrite_key])
        return TableShape(
            key=stream.primary_key if upsert or self._options.primary_keys else (),
            sequenced=upsert,
            indexes=indexes,
        )

    def _write(
        self,
        target: TableName,
        columns: tuple[ColumnMapping, ...],
        delivery: muxly.Delivery,
        make_feed: Callable[..., RecordFeed],
    ) -> TableWrite:
        return TableWrite(
            session=self._database.session,
            dialect=self._database.dialect,
            tables=self._database.tables,
            target=target,
            columns=columns,
            delivery=delivery,
            make_feed=make_feed,
            hard=self._options.deletes == "hard",
            stage=f"{names.OWN_PREFIX}{self._owner.digest()}_t{self._token}",
        )


def _open_stages(prepared: list[TableWrite] | muxly.Receipt) -> None:
    for write in prepared if isinstance(prepared, list) else ():
        write_modes.open_stages(write)
