"""The selection of a route: the records, columns and column names it delivers of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from attrs import define, evolve, field

from muxly._runner.deliver.where import Filter, check_where
from muxly._runner.schema.contract import DELETED_AT
from muxly.errors import ConfigurationError
from muxly.pipeline import Columns, Route
from muxly.router import Mode
from muxly.stream import Stream
from muxly.suggest import suggest

__all__ = ["Selection", "selection_problems", "where_problems"]

_ALL = Columns()


@define(eq=False)
class Selection:
    """The records and columns of one stream that one route delivers.

    The filter sees the stream's own columns, also those that are left out or renamed after it. In
    mode ``upsert`` tombstones always pass it: a record must be deleted also when nothing but its
    key is known. A column that is configured and not in the stream's schema does not exist yet:
    it is left out, and counts as null in the filter; once the schema has it, it is delivered.

    Args:
        schema: What the route delivers.
        stream: The stream as its router sees it: renamed keys, and no key that is left out.
        digest_part: Text that changes with what is selected; for the digests of deliveries.
    """

    schema: pa.Schema
    stream: Stream
    digest_part: str
    _places: tuple[int, ...] | None = field(repr=False)
    _tombstones: int | None = field(repr=False)
    _filter: Filter | None = field(repr=False)

    @classmethod
    def of(cls, route: Route, stream_schema: pa.Schema, stream: Stream, mode: Mode) -> Selection:
        """The selection of a route.

        Args:
            route: With ``columns`` and ``where``.
            stream_schema: Of the batches that will come.
            stream: With the keys that the runner uses.
            mode: How the route applies records.

        Raises:
            ConfigurationError: As ``selection_problems``, except for columns that do not exist.
        """
        for problem in _mode_problems(route, stream_schema.names, stream, mode):
            raise problem
        names = _selected(route.columns or _ALL, stream_schema.names)
        schema = pa.schema(
            [
                stream_schema.field(old) if old == new else stream_schema.field(old).with_name(new)
                for old, new in names.items()
            ]
        )
        same = list(names) == stream_schema.names
        number = {name: place for place, name in enumerate(stream_schema.names)}
        upsert = mode == "upsert" and route.where is not None
        return cls(
            schema=schema,
            stream=_seen_by_router(stream, names, schema),
            digest_part=_digest_part(route, mode),
            places=None if same else tuple(number[old] for old in names),
            tombstones=_index(stream_schema, DELETED_AT) if upsert else None,
            filter=None if route.where is None else Filter(route.where, stream_schema),
        )

    def apply(self, batch: pa.RecordBatch, mask: pa.BooleanArray | None) -> pa.RecordBatch:
        """The selected records and columns of a batch, in its order; without copies where all pass.

        Args:
            batch: With the stream's schema that the selection was made for.
            mask: What ``mask`` gave for the batch.
        """
        return self.project(batch if mask is None or not mask.false_count else batch.filter(mask))

    def mask(self, batch: pa.RecordBatch) -> pa.BooleanArray | None:
        """Which records pass the filter, without nulls; None = there is no filter.

        Raises:
            RouteError: The filter fails on a value.
        """
        if self._filter is None:
            return None
        mask = self._filter.mask(batch)
        # A tombstone often has nothing but its key: no filter may keep it from the record it deletes.
        if self._tombstones is not None:
            mask = pc.or_(mask, batch.column(self._tombstones).is_valid())
        return mask

    def project(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The selected columns of records that passed, under their new names."""
        if self._places is not None:
            batch = batch.select(list(self._places))
        if batch.schema.equals(self.schema, check_metadata=True):
            return batch
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema) if self.schema.names else batch


def _index(schema: pa.Schema, name: str) -> int | None:
    place = int(schema.get_field_index(name))
    return None if place < 0 else place


def _selected(columns: Columns, names: list[str]) -> dict[str, str]:
    """New names by old ones, in the order of delivery."""
    if columns.include is None:
        chosen = names
    else:
        known = set(names)
        chosen = [name for name in columns.include if name in known]
        if DELETED_AT in known and DELETED_AT not in chosen:
            chosen.append(DELETED_AT)
    left_out = set(columns.exclude)
    return {name: columns.rename.get(name, name) for name in chosen if name not in left_out}


def _seen_by_router(stream: Stream, names: Mapping[str, str], schema: pa.Schema) -> Stream:
    return evolve(
        stream,
        primary_key=_renamed(stream.primary_key, names),
        overwrite_key=_renamed(stream.overwrite_key, names),
        cursor_field=None if stream.cursor_field is None else names.get(stream.cursor_field),
        schema=schema,
        columns=None,
    )


def _renamed(key: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    """The key under its new names; no key at all if a part of it is left out."""
    return tuple(names[name] for name in key) if all(name in names for name in key) else ()


def _digest_part(route: Route, mode: Mode) -> str:
    columns = route.columns or _ALL
    chosen = {
        "include": columns.include,
        "exclude": sorted(columns.exclude) or None,
        "rename": dict(sorted(columns.rename.items())) or None,
        "where": route.where,
        "mode": mode,
    }
    return json.dumps({word: value for word, value in chosen.items() if value is not None}, sort_keys=True)


def selection_problems(
    route: Route, streams: Mapping[str, tuple[Stream, pa.Schema | None]], modes: Mapping[str, Mode]
) -> Iterator[ConfigurationError]:
    """All that is wrong with ``columns`` and ``where`` of a route.

    A column must be in one of the route's streams, not in all; it is looked for only when all
    their schemas are known.

    Args:
        route: The route.
        streams: The streams that it delivers by name, each with its schema, if known.
        modes: How it delivers each of them.

    Yields:
        Errors whose ``path`` begins inside of the route: ``("columns", "exclude", 0)``.
    """
    known: list[str] | None = []
    for _, schema in streams.values():
        known = None if known is None or schema is None else known + schema.names
    yield from _unknown_columns(route, known)
    for name, (stream, schema) in streams.items():
        yield from _mode_problems(route, None if schema is None else schema.names, stream, modes[name])
    yield from where_problems(route, [schema for _, schema in streams.values()])


def where_problems(route: Route, schemas: Sequence[pa.Schema | None]) -> Iterator[ConfigurationError]:
    """The expression must be right for one of the streams; for the others missing columns are null."""
    if route.where is None:
        return
    first: ConfigurationError | None = None
    for schema in schemas or [None]:
        try:
            check_where(route.where, schema)
        except ConfigurationError as error:
            first = first or error
        else:
            return
    if first is not None:
        yield first


def _unknown_columns(route: Route, known: list[str] | None) -> Iterator[ConfigurationError]:
    if known is None:
        return
    columns = route.columns or _ALL
    asked: list[tuple[tuple[str | int, ...], str]] = [
        *((("columns", "include", place), name) for place, name in enumerate(columns.include or ())),
        *((("columns", "exclude", place), name) for place, name in enumerate(columns.exclude)),
        *((("columns", "rename", name), name) for name in columns.rename),
    ]
    for path, name in asked:
        if name not in known and name != DELETED_AT:
            near = suggest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known[:10])}"
            yield ConfigurationError(f"there is no column {name!r}; {hint}", path=path)


def _mode_problems(route: Route, names: list[str] | None, stream: Stream, mode: Mode) -> Iterator[ConfigurationError]:
    columns = route.columns or _ALL
    yield from _rename_problems(columns, names)
    for key, why in _needed(stream, mode).items():
        if names is not None and key not in names:
            continue
        if key in columns.exclude:
            place: tuple[str | int, ...] = ("exclude", columns.exclude.index(key))
            remedy = "remove it from `exclude`"
        elif columns.include is not None and key not in (*columns.include, DELETED_AT):
            place, remedy = ("include",), "add it to `include`"
        else:
            continue
        yield ConfigurationError(
            f"column {key!r} of stream {stream.name!r} cannot be omitted: it is {why}, "
            f"which mode {mode} needs; {remedy}",
            path=("columns", *place),
        )


def _needed(stream: Stream, mode: Mode) -> dict[str, str]:
    """Columns that a mode cannot do without, and what they are."""
    if mode == "overwrite":
        return dict.fromkeys(stream.overwrite_key, "part of the overwrite key")
    if mode != "upsert":
        return {}
    needed = dict.fromkeys(stream.primary_key, "part of the primary key")
    if stream.cursor_field is not None:
        needed.setdefault(stream.cursor_field, "the cursor field")
    return needed | {DELETED_AT: "the marker for deleted records"}


def _rename_problems(columns: Columns, names: list[str] | None) -> Iterator[ConfigurationError]:
    if DELETED_AT in columns.rename:
        message = f"{DELETED_AT!r} is reserved for deleted records and cannot be renamed"
        yield ConfigurationError(message, path=("columns", "rename", DELETED_AT))
    spoken = names if names is not None else [*(columns.include or ()), *columns.rename]
    owner: dict[str, str] = {}
    for old, new in _selected(columns, list(dict.fromkeys(spoken))).items():
        if not new or new in owner or (new == DELETED_AT != old):
            other = f"column {owner[new]!r} has that name" if new in owner else "that is not a valid column name"
            renamed = old if old in columns.rename else owner.get(new, old)
            yield ConfigurationError(
                f"column {old!r} cannot be delivered as {new!r}: {other}; choose another",
                path=("columns", "rename", renamed),
            )
        owner.setdefault(new, old)
