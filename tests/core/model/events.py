"""What may happen to the world: runs, crashes, faults, and commands of people."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from random import Random

from attrs import evolve

from tests.core.model import verdict
from tests.core.model.ledger import Group, Missing
from tests.core.model.places import Destination, Route, Source
from tests.core.model.rules import Rules
from tests.core.model.run import Run
from tests.core.model.verdict import Violation
from tests.core.model.world import World

__all__ = ["EVENTS", "build", "conclude", "explore"]

BOUND = 8000
PROMISES = ("once", "once", "repeats", "marks")


KINDS = ("log", "log", "days", "full")


def build(rng: Random, rules: Rules, kinds: tuple[str, ...] = KINDS) -> World:
    """A world of one or two streams and two or three routes."""
    world = World(rng, rules)
    world.ledger.rules = rules
    world.shared = Destination(rules)
    for number in range(rng.randrange(2, 4)):
        world.add_route(a_route(world, f"route{number}"), a_destination(world))
    for number, kind in enumerate(rng.sample(kinds, min(len(kinds), rng.randrange(1, 3)))):
        world.add_stream(f"{kind}{number}", a_source(rng, kind))
    return world


def a_source(rng: Random, kind: str) -> Source:
    partitions = rng.randrange(1, 3)
    return Source(kind, partitions, windowed=partitions > 1 or rng.random() < 0.5, unsorted=rng.random() < 0.3)


def a_route(world: World, name: str) -> Route:
    rng = world.rng
    return Route(
        name,
        promise=rng.choice(PROMISES),
        upsert=world.chance(3),
        filtered=world.chance(3),
        limit=rng.randrange(1, 6),
        refuses=rng.choice(["", "", "raise", "receipt"]),
        max_rejected=rng.choice([0, 1, 100]),
        detaches=world.chance(3),
    )


def a_destination(world: World) -> Destination:
    return world.shared if world.chance(2) else Destination(world.rules)


# --- runs


def start(world: World) -> bool:
    """Begin a run, unless one is running or a removed route has records waiting."""
    if world.run is not None and world.rules.one_run_at_a_time:
        return False
    if not _settle_removed_routes(world):
        return False
    token = world.ledger.acquire() if world.run is None else world.ledger.token
    if any(run.active and run.token == token for run in (*world.zombies, *([world.run] if world.run else []))):
        raise Violation(f"two holders: the token {token} is held twice")
    _recover(world)
    world.run = Run(world, token)
    world.excused = {key for key, pair in world.ledger.pairs.items() if pair.detached}
    world.run.start()
    return True


def _settle_removed_routes(world: World) -> bool:
    waiting = {key: world.ledger.pending(key) for key in world.ledger.pairs if key[0] in world.removed}
    if any(waiting.values()) and world.rules.removed_routes_refuse:
        return False
    if any(waiting.values()):
        raise Violation(f"lost: {waiting} records of a removed route were forgotten")
    for route in list(world.removed):
        discard_route(world, route)
    return True


def discard_route(world: World, route: str) -> None:
    """``routes discard``: its records are given up on purpose."""
    world.ledger.discard_route(world.ledger.acquire(), route)
    for key in [key for key in world.owed_from if key[0] == route]:
        del world.owed_from[key]
    world.removed.discard(route)


def _recover(world: World) -> None:
    """What a run does first."""
    if world.rules.orphans_are_swept:
        world.sweep()
    for pair in world.ledger.pairs.values():
        if any(stored.id in world.unrecorded for stored in pair.queue):
            pair.queue = [evolve(stored, id=world.new_id("d")) for stored in pair.queue]
    if not world.rules.commits_survive_power and (world.saved is None or world.chance(2)):
        world.saved = deepcopy(world.ledger)


def step(world: World, count: int) -> None:
    """Let processes of the run and of zombies go on, in any order."""
    for _ in range(count):
        runs = [run for run in (world.run, *world.zombies) if run is not None and run.active]
        if not runs:
            break
        run = runs[0] if world.rng.randrange(6) else world.rng.choice(runs)  # zombies sleep a lot
        run.step(world.rng.choice(list(run.active)))
    if world.run is not None and not world.run.active:
        verdict.check_ended(world)
        world.run = None
    world.zombies = [run for run in world.zombies if run.active]


def finish(world: World) -> None:
    """Let the run come to its end, whatever faults there are."""
    for _ in range(BOUND):
        if world.run is None:
            return
        step(world, 1)
    raise Violation(f"stuck: {sorted(world.run.active) if world.run else []} never end")


def begin_or_go_on(world: World) -> None:
    if not start(world):
        step(world, world.rng.randrange(1, 30))


def crash(world: World) -> None:
    """kill -9: what was in memory is gone, what was written stays."""
    world.interrupt()


def power_cut(world: World) -> None:
    """What was not fsynced is gone, too."""
    crash(world)
    world.zombies.clear()
    world.disk.power_cut()
    if world.saved is not None:
        world.ledger, world.saved = world.saved, None


def zombify(world: World) -> None:
    """The holder is suspended so long that its lease runs out; later it goes on."""
    if world.run is not None:
        world.zombies.append(world.run)
        world.interrupt()


# --- faults


def toggle(world: World) -> None:
    destination = world.destinations[world.rng.choice(sorted(world.routes))]
    destination.down = not destination.down


def corrupt(world: World) -> None:
    """A bit flips in one segment."""
    segments = [one for stream in world.ledger.streams.values() for one in stream.segments.values()]
    there = [one for one in segments if one.ids and world.disk.segment(one.file, one.place)]
    if not there or not world.chance(3):
        return
    segment = world.rng.choice(there)
    content = list(world.disk.files[segment.file])
    flipped = evolve(content[segment.place][0], id=-segment.ids[0])
    content[segment.place] = (flipped, *content[segment.place][1:])
    world.disk.files[segment.file] = tuple(content)
    world.corrupted.add((segment.file, segment.place))


# --- the source and the commands of people


def a_stream(world: World) -> str:
    return world.rng.choice(sorted(world.sources))


def produce(world: World) -> None:
    for _ in range(world.rng.randrange(1, 6)):
        world.produce(a_stream(world))


def other_options(world: World) -> None:
    """Other partitions: a plan made before them may not be continued."""
    source = world.sources[a_stream(world)]
    if world.run is not None:
        return  # a run keeps the configuration it began with
    source.options += 1
    source.partitions = 1 + source.partitions % 2
    source.windowed = source.windowed or source.partitions > 1


def add_route(world: World) -> None:
    if world.run is None and len(world.routes) < 5:
        world.add_route(a_route(world, f"late{len(world.routes)}"), a_destination(world))


def remove_route(world: World) -> None:
    """A route is taken out of the configuration; if it is missed, it is discarded or comes back."""
    if world.run is not None or len(world.owed_from) <= len(world.sources):
        return
    route = world.rng.choice(sorted({key[0] for key in world.owed_from}))
    world.removed.add(route)
    if start(world) or not world.removed:
        return
    if world.chance(2):
        discard_route(world, route)
    world.removed.clear()


def prune(world: World) -> None:
    """Row first, then file; a crash may come between."""
    if world.run is not None:
        return
    token, name, count = world.ledger.acquire(), a_stream(world), world.rng.randrange(1, 6)
    crashed = world.fault(3)
    if world.rules.prune_row_first:
        files = world.ledger.prune(token, name, count)
        for file in () if crashed else files:
            world.disk.remove(file)
        return
    for file in deepcopy(world.ledger).prune(token, name, count):
        world.disk.remove(file)
    if not crashed:
        world.ledger.prune(token, name, count)


def drop_quarantined(world: World) -> None:
    """``segments drop``. The rest of a delivery it is in may have arrived before."""
    if world.run is not None:
        return
    token = world.ledger.acquire()
    for name, stream in world.ledger.streams.items():
        for segment in [one for one in stream.segments.values() if one.corrupt and not one.dropped]:
            for key, pair in world.ledger.pairs.items():
                parts = [part for stored in pair.queue for part in stored.slices] if key[1] == name else []
                if segment.position in {part.position for part in parts}:
                    world.may_come_again(key, sorted({part.position for part in parts}))
            world.ledger.drop(token, name, segment.position)
            world.given_up[name].add(segment.position)


def replay(world: World) -> None:
    """A detached route goes on where it was; another one gets everything again, into an emptied table or not."""
    if world.run is not None or not world.owed_from:
        return
    key = world.rng.choice(sorted(world.owed_from))
    if world.sources[key[1]].kind != "full":
        replay_pair(world, key, partial=world.chance(2), wipe=world.chance(2))


def replay_pair(world: World, key: tuple[str, str], *, partial: bool, wipe: bool) -> None:
    pair, head = world.ledger.pairs[key], world.ledger.streams[key[1]].head
    detached, place, begun = pair.detached, pair.position, bool(pair.offset or pair.queue)
    target = place if detached else 1
    try:
        first = world.ledger.replay(world.ledger.acquire(), key, from_position=target, partial=partial)
    except Missing:
        return
    if first > target and not partial:
        raise Violation(f"gap: the replay of {key} passed over {target} to {first - 1} without a word")
    world.missed[key].update(range(target, first))
    world.owed_from[key] = min(world.owed_from[key], first)
    if not (detached and first == place):
        world.may_come_again(key, range(first, head + 1 if begun else place))
    if wipe and not detached:
        world.destinations[key[0]].tables[key].rows.clear()
        world.destinations[key[0]].tables[key].keys.clear()


def reset(world: World) -> None:
    """``state reset``: everything is read again on purpose."""
    name = a_stream(world)
    if world.run is None and world.sources[name].kind != "full" and world.chance(3):
        world.forgive(name)
        world.ledger.clear_cursor(world.ledger.acquire(), name)


def limited_run(world: World) -> None:
    """``--limit`` reads a little under a ledger that is thrown away: for this one nothing happens."""
    name = a_stream(world)
    stream, source = world.ledger.streams[name], world.sources[name]
    if world.run is not None or world.rules.limit_moves_nothing or source.kind != "log" or stream.plan:
        return
    token = world.ledger.acquire()
    plan = world.make_plan(token, name, source)
    for part, state in plan.partitions.items():
        group = Group(name, plan.number, part, world.new_id("r"), (state.last, state.cursor), source.tick, done=True)
        world.seal(token, group, "", 0)


EVENTS: tuple[tuple[int, Callable[[World], None]], ...] = (
    (8, produce),
    (24, begin_or_go_on),
    (3, finish),
    (6, crash),
    (3, power_cut),
    (4, zombify),
    (4, toggle),
    (2, corrupt),
    (1, other_options),
    (1, add_route),
    (1, remove_route),
    (4, prune),
    (2, drop_quarantined),
    (3, replay),
    (1, reset),
    (1, limited_run),
)


def conclude(world: World) -> None:
    """Heal everything; clean runs must then deliver everything."""
    crash(world)
    world.zombies.clear()
    world.faulty = False
    for destination in world.destinations.values():
        destination.down = False
    for _ in range(4):
        drop_quarantined(world)
        for key, pair in world.ledger.pairs.items():
            if pair.detached:
                replay_pair(world, key, partial=True, wipe=False)
        if not start(world):
            raise Violation("stuck: no run can begin")
        finish(world)
        verdict.check_always(world)
    verdict.check_final(world)


def explore(seed: int, rules: Rules, kinds: tuple[str, ...] = KINDS, events: int = 60) -> None:
    """One random life of one random world."""
    rng = Random(seed)
    world = build(rng, rules, kinds)
    weights = [weight for weight, _ in EVENTS]
    produce(world)
    for _ in range(events):
        ((_, event),) = rng.choices(EVENTS, weights)
        event(world)
        verdict.check_always(world)
    conclude(world)
