"""Label sets, made of columns: one text for each record, which is also the name of its series.

The text is what stands between the braces of the exposition formats. Its labels are sorted, so that
equal sets are equal texts; an empty or missing value is an absent label, as Prometheus has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

import muxly

__all__ = ["as_text", "constant", "label_text"]

_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"))


def as_text(values: pa.Array, name: str, what: str) -> pa.Array:
    """A column as the text of a label; missing values stay missing.

    Args:
        values: The column.
        name: Its name.
        what: What it is for, to say in the error.

    Raises:
        ConfigurationError: Values of its type have no text.
    """
    try:
        return values.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise muxly.ConfigurationError(
            f"column {name!r} for a label of {what} is {values.type} and cannot be text; choose another column, or "
            f"leave that label out ({str(error).splitlines()[0]})"
        ) from error


def escaped(values: pa.Array) -> pa.Array:
    """Backslashes, quotes and line ends written as both formats want them."""
    for raw, written in _ESCAPES:
        if pc.any(pc.match_substring(values, raw)).as_py():
            values = pc.replace_substring(values, raw, written)
    return values


def constant(name: str, value: str) -> str:
    """A label whose value is the same for all records; nothing if it is empty."""
    if not value:
        return ""
    for raw, written in _ESCAPES:
        value = value.replace(raw, written)
    return f'{name}="{value}"'


def label_text(columns: Sequence[tuple[str, pa.Array | str]], count: int) -> pa.Array:
    """The text of each record's labels.

    Args:
        columns: Pairs of label and its values as text, or one value for all, sorted by label.
        count: How many records there are.
    """
    parts = [part for name, values in columns for part in _part(name, values)]
    if not parts:
        return pa.repeat(pa.scalar("", pa.string()), count)
    joined = pc.utf8_rtrim(pc.binary_join_element_wise(*parts, ""), ",")
    return joined if isinstance(joined, pa.Array) else pa.repeat(joined, count)  # a scalar if all labels are constant


def _part(name: str, values: pa.Array | str) -> list[pa.Array | str]:
    """``name="value",`` piece by piece; nothing where the value is missing or empty."""
    if isinstance(values, str):
        text = constant(name, values)
        return [pa.scalar(f"{text},")] if text else []
    written = escaped(values)
    absent = pc.equal(pc.fill_null(values, ""), "")
    if not pc.any(absent).as_py():
        return [f'{name}="', written, '",']
    whole = pc.binary_join_element_wise(f'{name}="', pc.fill_null(written, ""), '",', "")
    return [pc.if_else(absent, "", whole)]
