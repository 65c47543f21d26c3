"""The tables of one stream of one route: each delivery is one transaction, each full read one exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

import muxly
from muxly_routers.sql import names, write_modes
from muxly_routers.sql.deliveries import Deliveries, Owner
from muxly_routers.sql.error_texts import typed
from muxly_routers.sql.generations import Generations
from muxly_routers.sql.tables import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from muxly_routers.sql.quoting import Place
    from muxly_routers.sql.reconnect import Link
    from muxly_routers.sql.row_slices import Feed, Mapped
    from muxly_routers.sql.settings import Settings

__all__ = ["StreamTables"]

_APPLY = {
    "append": write_modes.append,
    "replace": write_modes.append,
    "upsert": write_modes.upsert,
    "overwrite": write_modes.overwrite,
}


class StreamTables:
    """Where one stream's records go in one database.

    Args:
        link: To the database.
        settings: Of the router.
        run: For whom.
        stream: Whose tables.
    """

    def __init__(self, link: Link, settings: Settings, run: muxly.Run, stream: muxly.Stream) -> None:
        self._link, self._settings, self._token = link, settings, run.token
        self._owner = Owner(run.pipeline, run.route or "", stream.name)
        self._target = self._place()
        self._memory = Deliveries(link.session, link.dialect, link.tables, self._target.schema)
        self._generations = Generations(
            session=link.session,
            dialect=link.dialect,
            tables=link.tables,
            memory=self._memory,
            owner=self._owner,
            target=self._target,
        )

    def _place(self) -> Place:
        given = {"stream": self._owner.stream, "route": self._owner.route, "pipeline": self._owner.pipeline}
        template = self._settings.schema
        schema = None if template is None else names.fit(names.rendered(template, given), self._link.dialect)
        return self._link.tables.place(schema, names.rendered(self._settings.table, given))

    def begin(self, generation: int) -> None:
        """Drop what older generations of the stream left."""
        if self._link.dialect.transactional:
            with self._link.transaction(lambda: self._generations.refuse_old(generation)):
                self._generations.begin(generation)
        else:
            self._generations.refuse_old(generation)
            self._generations.begin(generation)
        self._link.tables.forget()

    def complete(self, generation: int) -> None:
        """Make a generation visible, unless it is."""
        if self._link.dialect.transactional:
            with self._link.transaction(lambda: self._generations.prepare(generation)) as needed:
                if needed:
                    self._generations.show(generation)
        elif self._generations.prepare(generation):
            self._generations.show_in_steps(generation)
        self._link.tables.forget()

    def deliver(self, delivery: muxly.Delivery, fed: Callable[..., Feed], pruned: set[str]) -> muxly.Receipt:
        """Records, id and receipt, in one transaction.

        Args:
            delivery: The records.
            fed: Makes a feed of them, given its columns.
            pruned: Streams of which nothing old is remembered any more; this one is added in time.
        """
        receipt = muxly.Receipt()
        with self._link.transaction(lambda: self._prepared(delivery, fed), _stage) as prepared:
            if isinstance(prepared, muxly.Receipt):
                return prepared
            self._remember(delivery, receipt)
            name = self._owner.stream
            if name not in pruned and self._memory.prune(self._owner, self._settings.remember_seconds):
                pruned.add(name)
            for work in prepared:
                _APPLY[delivery.mode](work)
                write_modes.clear_stages(work)
        return receipt

    def _remember(self, delivery: muxly.Delivery, receipt: muxly.Receipt) -> None:
        try:
            with typed(self._link.dialect, self._link.where):
                self._memory.remember(delivery, self._owner, receipt)
        except muxly.RejectedError as error:
            raise muxly.RetryableError(f"{self._link.where}: another run makes the same delivery: {error}") from None

    def _prepared(self, delivery: muxly.Delivery, fed: Callable[..., Feed]) -> list[write_modes.Work] | muxly.Receipt:
        """The work to do with its tables made ready; none if there is nothing to make a table of.

        Returns:
            The receipt, if the delivery was made before.
        """
        if (known := self._memory.receipt(delivery)) is not None:
            return known
        self._memory.prepare()
        target, shape, tables = self._place_of(delivery), self._shape(delivery), self._link.tables
        tables.look_again(target)
        wanted = tables.mapped(target, delivery.schema, keyed=shape.keyed)
        if not wanted and not any(batch.num_rows for batch in delivery.batches()):
            return []
        try:
            with typed(self._link.dialect, self._link.where):
                work = self._work(target, tables.ensure(target, wanted, shape), delivery, fed)
                write_modes.prepare(work, shape)
        except muxly.RejectedError as error:  # of rows that are there, and no record's fault
            raise muxly.StreamError(
                f"{self._link.where}: the table {target.table!r} cannot be made ready for {delivery.mode}: {error}; "
                "change the rows that are in the way, or rename the table"
            ) from None
        return [work]

    def _place_of(self, delivery: muxly.Delivery) -> Place:
        """The table that takes the records."""
        if delivery.mode != "replace":
            return self._target
        assert delivery.generation is not None
        self._generations.refuse_old(delivery.generation, filling=True)
        return self._generations.place(delivery.generation)

    def _shape(self, delivery: muxly.Delivery) -> Shape:
        stream, upsert = delivery.stream, delivery.mode == "upsert"
        if upsert and not stream.primary_key:
            raise muxly.StreamError(
                f"stream {stream.name!r} has no primary key, which upsert needs; name one with primary_key: "
                "in the pipeline's streams, or choose mode: append"
            )
        indexes = list(self._settings.indexes.get(stream.name, ()))
        if delivery.mode == "overwrite":
            indexes.append(stream.overwrite_key)
        return Shape(
            key=stream.primary_key if upsert or self._settings.primary_keys else (),
            sequenced=upsert,
            indexes=indexes,
        )

    def _work(
        self, target: Place, columns: tuple[Mapped, ...], delivery: muxly.Delivery, fed: Callable[..., Feed]
    ) -> write_modes.Work:
        return write_modes.Work(
            session=self._link.session,
            dialect=self._link.dialect,
            tables=self._link.tables,
            target=target,
            columns=columns,
            delivery=delivery,
            feed=fed,
            hard=self._settings.hard,
            stage=f"{names.OWN}{self._owner.digest()}_t{self._token}",
        )


def _stage(prepared: list[write_modes.Work] | muxly.Receipt) -> None:
    for work in prepared if isinstance(prepared, list) else ():
        write_modes.open_stages(work)
