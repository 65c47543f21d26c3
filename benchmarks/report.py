"""Writes the measured figures as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from attrs import frozen

MEGABYTE = 1_000_000
MUXLY = "Muxly, one run"
DLT_ADBC = "dlt, ADBC"
FAN_OUT = "fan_out_{records}"
Results = Mapping[str, Any]


@frozen(kw_only=True)
class Target:
    """What is to be reached.

    Args:
        what: In words.
        limit: The greatest value that is good.
        reached: The value in the results; None = it was not measured.
        unit: Behind the numbers.
    """

    what: str
    limit: float
    reached: Callable[[Results], float | None]
    unit: str = ""


def markdown(results: Results) -> str:
    """The whole page."""
    return "\n".join([*_head(results), *_targets(results), *_tables(results), *_notes()])


def _head(results: Results) -> Iterator[str]:
    machine, versions = results["machine"], results["versions"]
    yield "# Results"
    yield ""
    yield "Written by `nox -s bench`; the figures of every single time are in `results.json`."
    yield ""
    yield f"- {machine['at']}; {machine['processor']}; {machine['memory']}; {machine['system']}"
    yield f"- load average (1, 5, 15 minutes) at the start {machine['load']}, at the end {results['load_at_end']}"
    yield f"- {', '.join(f'{name} {version}' for name, version in versions.items())}"
    yield ""


def _targets(results: Results) -> Iterator[str]:
    yield "| what | must be | is | |"
    yield "|---|---|---|---|"
    for target in TARGETS:
        value = target.reached(results)
        if value is None:
            yield f"| {target.what} | {target.limit:g}{target.unit} | not measured | |"
            continue
        verdict = "reached" if value <= target.limit else "**missed**"
        yield f"| {target.what} | at most {target.limit:g}{target.unit} | {value:.3g}{target.unit} | {verdict} |"
    imported = ", ".join(results["plugins_imported"])
    verdict = "**missed**" if imported else "reached"
    yield f"| plugins that `muxly plugins` imports | none | {imported or 'none'} | {verdict} |"
    yield ""


def _tables(results: Results) -> Iterator[str]:
    for key, work in results["works"].items():
        first = next(iter(work["contenders"]))
        unit = _median(work["contenders"][first], "cpu_seconds")
        columns = _more_columns(work)
        yield f"## {work['title']}"
        yield ""
        yield f"Taken {work['at']}; load average {work['load']}."
        yield ""
        heads = ["", "times", "CPU s, least", "CPU s, median", f"x {first}", "wall s, median", "peak MB, most"]
        yield f"| {' | '.join([*heads, *(head for head, _ in columns)])} |".replace("|  |", "| |")
        yield "|---" * (len(heads) + len(columns)) + "|"
        for name, taken in work["contenders"].items():
            yield _row(name, taken, unit, [figure for _, figure in columns])
        yield ""
        if key == "sealing":
            yield from _sealing(work)


def _more_columns(work: Results) -> list[tuple[str, str]]:
    """What only some works have: their heads, and their keys."""
    known = {
        "server_cpu_seconds": "server CPU s, median",
        "clocked_cpu_seconds": "clocked CPU s, median",
        "clocked_wall_seconds": "clocked wall s, median",
    }
    rows = [one for taken in work["contenders"].values() for one in taken]
    return [(head, key) for key, head in known.items() if any(key in one for one in rows)]


def _row(name: str, taken: Sequence[Mapping[str, Any]], unit: float, more: Sequence[str]) -> str:
    cpu = _median(taken, "cpu_seconds")
    cells = [
        name,
        str(len(taken)),
        f"{min(one['cpu_seconds'] for one in taken):.2f}",
        f"{cpu:.2f}" + _parts(taken),
        f"{cpu / unit:.2f}",
        f"{_median(taken, 'wall_seconds'):.2f}",
        f"{max(one['peak_bytes'] for one in taken) / MEGABYTE:.0f}",
        *(f"{_median(taken, key):.2f}" if key in taken[0] else "" for key in more),
    ]
    return f"| {' | '.join(cells)} |"


def _parts(taken: Sequence[Mapping[str, Any]]) -> str:
    """The medians of several commands, one by one."""
    count = len(taken[0]["parts_cpu_seconds"])
    if count == 1:
        return ""
    parts = [median(one["parts_cpu_seconds"][number] for one in taken) for number in range(count)]
    return f" ({' + '.join(f'{one:.1f}' for one in parts)})"


def _sealing(work: Results) -> Iterator[str]:
    yield "Inside those runs, medians: the committer works beside the reader and the routes, so its wall time is more"
    yield "than what a run would save without it."
    yield ""
    yield "| | run wall s | run CPU s | sealing wall s | sealing CPU s | spooling wall s | spooling CPU s |"
    yield "|---|---|---|---|---|---|---|"
    for name, taken in work["contenders"].items():
        keys = [f"{what}_{clock}_seconds" for what in ("run", "sealing", "spooling") for clock in ("wall", "cpu")]
        yield f"| {name} | {' | '.join(f'{_median(taken, key):.3f}' for key in keys)} |"
    yield ""


def _notes() -> Iterator[str]:
    yield "How each figure is taken, and why the comparison is fair, is in `README.md`."
    yield ""


def _median(taken: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(median(one[key] for one in taken))


def _figure(work: str, contender: str, key: str = "cpu_seconds") -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        taken = results["works"].get(work.format(**results), {}).get("contenders", {}).get(contender)
        return None if taken is None else _median(taken, key)

    return found


def _ratio(work: str, ours: str, theirs: str, *keys: str) -> Callable[[Results], float | None]:
    """The median of the ratios within each round, of the sums of ``keys``: both met the same machine."""
    summed = keys or ("cpu_seconds",)

    def found(results: Results) -> float | None:
        contenders = results["works"].get(work.format(**results), {}).get("contenders", {})
        if ours not in contenders or theirs not in contenders:
            return None
        rounds = zip(contenders[ours], contenders[theirs], strict=True)
        return float(median(_sum(our, summed) / _sum(their, summed) for our, their in rounds))

    return found


def _sum(taken: Mapping[str, Any], keys: Sequence[str]) -> float:
    return float(sum(taken[key] for key in keys))


def _peak(work: str, contender: str, times: int = 1) -> Callable[[Results], float | None]:
    def found(results: Results) -> float | None:
        name = work.format(records=results["records"] * times)
        taken = results["works"].get(name, {}).get("contenders", {}).get(contender)
        return None if taken is None else float(max(one["peak_bytes"] for one in taken)) / MEGABYTE

    return found


def _growth(results: Results) -> float | None:
    once, ten = _peak(FAN_OUT, MUXLY)(results), _peak(FAN_OUT, MUXLY, times=10)(results)
    return None if once is None or ten is None else 100 * (ten / once - 1)


def _sealing_share(results: Results) -> float | None:
    if "sealing" not in results["works"]:
        return None
    taken = results["works"]["sealing"]["contenders"]["with fsync"]
    return 100 * float(median(one["sealing_wall_seconds"] / one["run_wall_seconds"] for one in taken))


TARGETS = (
    Target(what="fan-out, CPU of Muxly / bare script", limit=1.3, reached=_ratio(FAN_OUT, MUXLY, "bare script")),
    Target(
        what="fan-out, CPU of Muxly / dlt's three runs", limit=0.3, reached=_ratio(FAN_OUT, MUXLY, "dlt, three runs")
    ),
    Target(what="fan-out, peak memory", limit=400, reached=_peak(FAN_OUT, MUXLY), unit=" MB"),
    Target(what="fan-out of ten times as many, peak memory", limit=400, reached=_peak(FAN_OUT, MUXLY, 10), unit=" MB"),
    Target(what="growth of the peak with ten times as many", limit=10, reached=_growth, unit=" %"),
    Target(
        what="to PostgreSQL, CPU of Muxly / dlt's ADBC load", limit=0.5, reached=_ratio("postgres", "Muxly", DLT_ADBC)
    ),
    Target(
        what="to PostgreSQL, the server's CPU, Muxly / ADBC's COPY by hand",
        limit=1.1,
        reached=_ratio("postgres", "Muxly", "ADBC's COPY by hand", "server_cpu_seconds"),
    ),
    Target(
        what="a tenth upserted / appended in PostgreSQL, CPU of client and server",
        limit=2,
        reached=_ratio("upsert", "upsert", "append", "cpu_seconds", "server_cpu_seconds"),
    ),
    Target(
        what="to SQLite, CPU of a million records",
        limit=6.67,
        reached=_figure("databases", "Muxly to SQLite"),
        unit=" s",
    ),
    Target(
        what="fan-out with PostgreSQL, CPU of Muxly / dlt's three runs",
        limit=0.25,
        reached=_ratio("three", MUXLY, "dlt, three runs"),
    ),
    Target(what="fan-out with PostgreSQL, peak memory", limit=350, reached=_peak("three", MUXLY), unit=" MB"),
    Target(
        what="128 MiB to S3, wall time, Muxly / boto3's upload_file",
        limit=1,
        reached=_ratio("s3", "Muxly", "boto3, upload_file", "clocked_wall_seconds"),
    ),
    Target(
        what="100,000 Prometheus series, CPU",
        limit=0.3,
        reached=_figure("series", "Muxly", "clocked_cpu_seconds"),
        unit=" s",
    ),
    Target(what="100 records to SQLite, CPU", limit=0.9, reached=_figure("small", "Muxly to SQLite"), unit=" s"),
    Target(
        what="100 records to PostgreSQL, CPU", limit=0.9, reached=_figure("small", "Muxly to PostgreSQL"), unit=" s"
    ),
    Target(what="run with nothing new, CPU", limit=0.6, reached=_figure("nothing_new", "Muxly"), unit=" s"),
    Target(what="run with nothing new, peak memory", limit=110, reached=_peak("nothing_new", "Muxly"), unit=" MB"),
    Target(what="`import muxly`, CPU", limit=0.1, reached=_figure("starts", "import muxly"), unit=" s"),
    Target(what="`muxly --help`, CPU", limit=0.15, reached=_figure("starts", "muxly --help"), unit=" s"),
    Target(what="sealing with fsync, share of the run's wall time", limit=20, reached=_sealing_share, unit=" %"),
)
