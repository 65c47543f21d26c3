"""The verdict: what may never be seen, after each event, after each run, and at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.core.model.reading import unreadable

if TYPE_CHECKING:
    from tests.core.model.places import Record
    from tests.core.model.world import World

__all__ = ["Violation", "check_always", "check_ended", "check_final", "check_generation"]

Key = tuple[str, str]


class Violation(AssertionError):
    """What the checker found; it begins with the verdict's word."""


def check_always(world: World) -> None:
    """What holds after every event."""
    if world.ledger.zombie_writes:
        raise Violation(f"zombie: {world.ledger.zombie_writes} transactions under an old token")
    if any(destination.conflicts for destination in world.destinations.values()):
        raise Violation("conflict: one delivery id came with two contents")
    for key in world.ledger.pairs:
        if off := world.ledger.balance(key):
            raise Violation(f"unbalanced: {key} is off by {off}: {dict(world.ledger.pairs[key].account)}")
    for name, stream in world.ledger.streams.items():
        for segment in stream.segments.values():
            if segment.ids and segment.file not in world.disk.files:
                raise Violation(f"dangling: segment {segment.position} of {name} has no file")
        _check_cursor(world, name)


def _check_cursor(world: World, name: str) -> None:
    source = world.sources[name]
    for record in source.records if source.kind == "log" else ():
        if record.tick < world.ledger.streams[name].cursor and not world.sealed[name][record.id]:
            raise Violation(f"passed: the cursor of {name} is behind record {record.id}, which was never sealed")


def check_ended(world: World) -> None:
    """A run that was not interrupted delivers everything, but on pairs that have an excuse."""
    run = world.run
    if run is None or run.token != world.ledger.token:
        return
    for key in world.ledger.pairs:
        if key not in world.excused and world.ledger.pending(key):
            raise Violation(f"stuck: {key} ended with {world.ledger.pending(key)} records, without a reason")
        if run.rejected[key] > world.max_rejected(world.routes[key[0]]):
            raise Violation(f"rejected: {key} rejected {run.rejected[key]} records, more than allowed")


def check_generation(world: World, key: Key) -> None:
    """What has become visible is a whole generation; what was given up may be in it or not."""
    table = world.destinations[key[0]].tables[key]
    expected, possible = Counter[int](), Counter[int]()
    for position, seen in enumerate(world.seen[key[1]], 1):
        if seen.generation == table.visible:
            ids = [one.id for one in seen.records if world.is_delivered(world.routes[key[0]], one, "full")]
            possible.update(ids)
            expected.update(() if position in world.given_up[key[1]] else ids)
    stream = world.ledger.streams[key[1]]
    if stream.sealed_generation < table.visible or _differs(world, key, table.content, expected, possible):
        raise Violation(f"partial: {key} shows {dict(table.content)} of {dict(expected)} in {table.visible}")


def _differs(world: World, key: Key, found: Counter[int], expected: Counter[int], possible: Counter[int]) -> bool:
    """Only a destination that remembers deliveries has each record once."""
    if world.routes[key[0]].promise == "once":
        return not expected <= found <= possible + world.again[key]
    return not expected.keys() <= found.keys() <= possible.keys()


def _owed(world: World, key: Key) -> Iterator[tuple[int, list[Record]]]:
    """What a route has to deliver of each position, by the observer's own memory."""
    kind = world.sources[key[1]].kind
    for position, seen in enumerate(world.seen[key[1]], 1):
        if position >= world.owed_from[key] and position not in world.given_up[key[1]] | world.missed[key]:
            yield position, [one for one in seen.records if world.is_delivered(world.routes[key[0]], one, kind)]


def check_final(world: World) -> None:
    """After the faults are healed and clean runs: nothing lost, doubled, invented, stuck or left over."""
    for name in world.sources:
        _check_source(world, name)
    used = {one.file for stream in world.ledger.streams.values() for one in stream.segments.values()}
    if left := sorted(set(world.disk.files) - used):
        raise Violation(f"left over: {left}")
    for key in world.owed_from:
        if key not in world.ledger.pairs:
            raise Violation(f"lost: nobody knows {key} any more")
        if world.ledger.pending(key):
            raise Violation(f"stuck: {key} still has {world.ledger.pending(key)} records")
        _check_pair(world, key)


def _check_source(world: World, name: str) -> None:
    """Everything the source has was sealed."""
    source, stream = world.sources[name], world.ledger.streams[name]
    logged = {record.id for seen in world.seen[name] for record in seen.records}
    letters = Counter(letter.record for letter in stream.letters)
    wanted = [record for day in source.days.values() for record in day] or source.records
    for record in wanted:
        lost = not letters[record.id] if source.kind == "log" and unreadable(record) else record.id not in logged
        if lost:
            raise Violation(f"lost: record {record.id} of {name} was never sealed")
    if stream.plan is not None:
        raise Violation(f"stuck: the plan of {name} never ends")


def _check_pair(world: World, key: Key) -> None:
    checks = {
        "append": _check_append,
        "upsert": _check_upsert,
        "overwrite": _check_overwrite,
        "replace": _check_replace,
    }
    route, kind = world.routes[key[0]], world.sources[key[1]].kind
    checks[route.mode(kind)](world, key)
    if kind != "full":
        _check_letters(world, key)
    for number, columns in world.destinations[key[0]].tables[key].columns.items():
        if number in world.known and columns != world.known[number].columns:
            raise Violation(f"narrowed: record {number} reached {key} with the columns {sorted(columns)} only")


def _check_letters(world: World, key: Key) -> None:
    route, kind = world.routes[key[0]], world.sources[key[1]].kind
    letters = {letter.record for letter in world.ledger.pairs[key].letters}
    for position, seen in enumerate(world.seen[key[1]], 1):
        if position < world.owed_from[key] or position in world.given_up[key[1]] | world.missed[key]:
            continue
        bad = {one.id for one in seen.records if route.is_bad(one, kind) and not world.is_filtered(route, one)}
        if not bad <= letters:
            raise Violation(f"lost: {key} rejected {sorted(bad - letters)} and kept no dead letter")
    wrong = [number for number in letters if not route.is_bad(world.known[number], kind)]
    if wrong:
        raise Violation(f"invented: {key} keeps dead letters of good records {wrong}")


def _check_append(world: World, key: Key) -> None:
    rows = world.destinations[key[0]].tables[key].rows
    promise = world.routes[key[0]].promise
    owed = Counter(one.id for _, records in _owed(world, key) for one in records)
    come = Counter(one.id for seen in world.seen[key[1]][world.owed_from[key] - 1 :] for one in seen.records)
    extra = 0
    for number in owed.keys() | rows.keys():
        allowed = come[number] + world.again[key][number]
        if owed[number] and not rows[number]:
            raise Violation(f"lost: record {number} never reached {key}")
        extra += max(rows[number] - allowed, 0)
        if promise == "once" and rows[number] > allowed:
            raise Violation(f"doubled: record {number} reached {key} {rows[number]} times")
        if promise == "repeats" and rows[number] > allowed + world.interrupted[key]:
            raise Violation(f"doubled: record {number} reached {key} {rows[number]} times")
    if promise == "marks" and extra > world.interrupted[key]:
        raise Violation(f"doubled: {extra} records of {key} after {world.interrupted[key]} interruptions")


def _check_upsert(world: World, key: Key) -> None:
    expected: dict[int, tuple[tuple[int, int], int]] = {}
    for position, records in _owed(world, key):
        for one in records:
            order = (one.tick, position)
            if one.key not in expected or order >= expected[one.key][0]:
                expected[one.key] = (order, one.id)
    found = world.destinations[key[0]].tables[key].keys
    for primary, (order, number) in expected.items():
        if primary not in found:
            raise Violation(f"lost: {key} has no record of the key {primary}")
        if found[primary][0] < order:
            raise Violation(f"older: {key} shows record {found[primary][1]}, not {number}")


def _check_overwrite(world: World, key: Key) -> None:
    """The newest group of each day; days that were given up are not compared."""
    expected: dict[int, Counter[int]] = {}
    group: list[Record] = []
    hurt = False
    route = world.routes[key[0]]
    for position, seen in enumerate(world.seen[key[1]], 1):
        group += [one for one in seen.records if world.is_delivered(route, one, "days")]
        hurt = hurt or position in world.given_up[key[1]] or position in world.missed[key]
        if not seen.ends_group:
            continue
        for day in seen.replaces if position >= world.owed_from[key] else ():
            expected.pop(day, None)
            if not hurt:
                expected[day] = Counter(one.id for one in group if one.day == day)
        group, hurt = [], False
    table = world.destinations[key[0]].tables[key]
    for day, wanted in expected.items():
        if table.days[day] != wanted:
            raise Violation(f"stale: {key} shows {dict(table.days[day])} for day {day}, not {dict(wanted)}")


def _check_replace(world: World, key: Key) -> None:
    stream, table = world.ledger.streams[key[1]], world.destinations[key[0]].tables[key]
    if world.ledger.pairs[key].completed != stream.sealed_generation or table.visible != stream.sealed_generation:
        raise Violation(f"stuck: {key} shows {table.visible}, and {stream.sealed_generation} is sealed")
    owed = Counter(
        one.id for one in world.sources[key[1]].records if world.is_delivered(world.routes[key[0]], one, "full")
    )
    if _differs(world, key, table.content, owed, owed) and not world.given_up[key[1]]:
        raise Violation(f"stale: {key} shows {dict(table.content)}, and the source has {dict(owed)}")
