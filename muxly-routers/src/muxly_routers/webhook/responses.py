"""Answers that say of each record whether it was taken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import frozen

import muxly
from muxly_routers._http.statuses import meaning

if TYPE_CHECKING:
    from muxly_routers._http.answer import HttpResponse

__all__ = ["RecordResults", "pointer_parts"]

_MULTI_STATUS = 207
_REASONS = ("reason", "error", "message", "detail")


def pointer_parts(pointer: str) -> list[str]:
    """The parts of a JSON pointer (RFC 6901); none of them names the whole document.

    Raises:
        ValueError: It is none.
    """
    if pointer and not pointer.startswith("/"):
        raise ValueError(f'{pointer!r} is no JSON pointer; write one such as "/rejected", or "" for the whole answer')
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


@frozen
class RecordResults:
    """Where an answer says which records were not taken.

    Args:
        place: The site, for errors.
        rejected_at: JSON pointer to a list of rejected numbers, or objects with ``index``; None = the
            status speaks for all records.
        results_at: JSON pointer to the list of results in an answer 207.
    """

    place: str
    rejected_at: str | None = None
    results_at: str = ""

    def rejected(self, answer: HttpResponse, count: int) -> dict[int, str]:
        """The rejected records of a request by their place in it, each with the reason.

        Args:
            answer: One with a status 2xx.
            count: How many records were sent.

        Raises:
            RetryableError: A record is to be sent again; the whole request is.
            RouteError: The answer does not say it in the way that was configured.
        """
        if answer.status == _MULTI_STATUS:
            return self._of_results(answer, self._found(answer, self.results_at), count)
        if self.rejected_at is None or (answer.whole and not answer.body.strip()):
            return {}
        found = self._found(answer, self.rejected_at)
        return {} if found is None else self._of_list(answer, found, count)

    def _found(self, answer: HttpResponse, pointer: str) -> Any:
        if not answer.whole:
            raise self._unclear("is larger than answer_bytes or cannot be decoded")
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise self._unclear(f"is not JSON: {answer.excerpt}") from None
        for part in pointer_parts(pointer):
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list) and part.isascii() and part.isdigit() and len(part) < 9:
                found = found[int(part)] if int(part) < len(found) else None
            else:
                return None
        return found

    def _of_list(self, answer: HttpResponse, found: Any, count: int) -> dict[int, str]:
        if not isinstance(found, list):
            raise self._unclear(f"has no list at {self.rejected_at!r}")
        rejected: dict[int, str] = {}
        for one in found:
            place = one.get("index") if isinstance(one, dict) else one
            if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
                said = answer.shown(str(place))[:40]
                raise self._unclear(f"rejects {said!r}, and the request had the records 0 to {count - 1}")
            rejected[place] = self._reason(answer, one)
        return rejected

    def _of_results(self, answer: HttpResponse, found: Any, count: int) -> dict[int, str]:
        if not isinstance(found, list) or len(found) != count:
            raise self._unclear(f"has no list of {count} results at {self.results_at!r}")
        rejected: dict[int, str] = {}
        for place, one in enumerate(found):
            status = one.get("status") if isinstance(one, dict) else one
            if isinstance(status, bool) or not isinstance(status, int):
                raise self._unclear(f"has a result without a status at {place}")
            if meaning(status) == "again":
                raise muxly.RetryableError(
                    f"{self.place} answered 207, and {status} for record {place} of the request",
                    retry_after=answer.retry_after,
                )
            if meaning(status) != "accepted":
                rejected[place] = f"{self._reason(answer, one)} ({status})"
        return rejected

    def _reason(self, answer: HttpResponse, one: Any) -> str:
        texts = [one[key] for key in _REASONS if isinstance(one.get(key), str)] if isinstance(one, dict) else []
        said = answer.shown(texts[0]) if texts else ""
        return f"{self.place} rejected the record{f': {said}' if said else ''}"

    def _unclear(self, problem: str) -> muxly.RouteError:
        return muxly.RouteError(
            f"{self.place} took a request, but its answer {problem}; look at rejected_at and results_at"
        )
