"""Components that the tests of the configuration configure."""

from __future__ import annotations

import enum
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from attrs.validators import and_, ge, le, matches_re, max_len, min_len, optional

import muxly

if TYPE_CHECKING:
    from collections.abc import Iterator


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Report(muxly.Options):
    metrics: list[str] = muxly.option("What is counted.", validator=min_len(1))
    limit: int | None = muxly.option("At most so many.", default=None, validator=optional(ge(0)))


class Numbers(muxly.Connector):
    """A connector with one option of every kind."""

    token: muxly.Secret = muxly.option("Access token.")
    url: str = muxly.option("Root of the API.", default="https://example.org", validator=matches_re(r"https?://\S+"))
    retries: int = muxly.option("Tries in all.", default=3, validator=and_(ge(1), le(10)))
    ratio: float = muxly.option("Share.", default=0.5)
    window: timedelta = muxly.option("How far back.", default=timedelta(days=7))
    page_bytes: int = muxly.option("Size of a page.", default=1 << 20)
    poll_seconds: float = muxly.option("Time between looks.", default=60.0)
    reports: dict[str, Report] = muxly.option("Reports by name.", factory=dict)
    folder: Path = muxly.option("Where caches are.", default=Path("cache"))
    source: Path | str = muxly.option("A path or a URL.", default="")
    color: Color = muxly.option("Colour.", default=Color.RED)
    since: date | None = muxly.option("First day.", default=None)
    at: datetime | None = muxly.option("When.", default=None)
    tags: frozenset[str] = muxly.option("Tags.", default=frozenset())
    pair: tuple[int, str] = muxly.option("A pair.", default=(1, "a"))
    names: tuple[str, ...] = muxly.option("Names.", default=(), validator=max_len(3))
    extra: Any = muxly.option("Anything.", default=None)
    either: int | list[int] = muxly.option("One or many.", default=0)
    small: Annotated[int, "note"] = muxly.option("Annotated.", default=1)
    secrets: dict[str, muxly.Secret] = muxly.option("More secrets.", factory=dict)

    def streams(self) -> list[muxly.Stream]:
        return [muxly.Stream("numbers")]

    def read(self, stream: muxly.Stream, partition: muxly.Partition, cursor: muxly.Cursor) -> Iterator[muxly.Batch]:
        yield muxly.Batch([{"number": 1}])


def _even(instance: object, attribute: object, value: int) -> None:
    if value % 2:
        raise ValueError(f"{value} is odd; write an even number")


class Shelf(muxly.Router):
    modes: ClassVar[frozenset[str]] = frozenset({"append", "replace"})

    path: Path = muxly.option("Where to put things.")
    format: Literal["csv", "jsonl", "parquet"] = muxly.option("Format of the files.", default="csv")
    even: int = muxly.option("An even number.", default=2, validator=_even)
    twin: int = muxly.option("Another even number.", default=2, validator=_even)
    key: muxly.Secret | None = muxly.option("Key.", default=None)

    def deliver(self, delivery: muxly.Delivery) -> None:
        return None


class Picky(muxly.Router):
    """Refuses itself as a whole, as a component may."""

    low: int = muxly.option("Low.", default=0)
    high: int = muxly.option("High.", default=1)

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise muxly.ConfigurationError("low is above high", path=("low",))


class Typed(muxly.Router):
    type: str = muxly.option("Clashes with the plugin's name.", default="x")


class Unfit(muxly.Router):
    when: complex = muxly.option("No file holds this.", default=1j)


NUMBERS = f"{__name__}:Numbers"
SHELF = f"{__name__}:Shelf"
PICKY = f"{__name__}:Picky"
TYPED = f"{__name__}:Typed"
UNFIT = f"{__name__}:Unfit"
