"""Typed objects from checked values: a cattrs converter that knows the types of options."""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from muxly._annotations import quoted
from muxly.config._conformance import fits
from muxly.config._document import KeyPath
from muxly.config._file_schema import OPTION_SCHEMAS
from muxly.config._schema import SchemaWriter, duration_seconds, fields, is_duration, is_model, is_size, size_bytes
from muxly.config._source import ExternalText
from muxly.errors import ConfigurationError
from muxly.options import Secret

if TYPE_CHECKING:
    import cattrs


class BuildError(Exception):
    """Values that validators refuse, each with its path below the built object."""

    def __init__(self, reasons: list[tuple[KeyPath, str]]) -> None:
        super().__init__("; ".join(reason for _path, reason in reasons))
        self.reasons = reasons


class OptionsBuilder:
    """Builds objects of attrs classes.

    Args:
        folder: The folder that relative paths start from.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._converter = self._new_converter()

    def build(self, model: type, value: Mapping[str, Any]) -> Any:
        """An object of the class.

        Args:
            model: An attrs class.
            value: Options that fit the class's schema.

        Raises:
            BuildError: A validator, a converter or the class itself refuses a value.
        """
        return create(model, self.options(model, value))

    def options(self, model: type, value: Mapping[str, Any], *, leave: Collection[str] = ()) -> dict[str, Any]:
        """The given options of a class, converted to their types.

        Args:
            model: An attrs class.
            value: Options that fit the class's schema.
            leave: Options to leave out, because the caller builds them.

        Raises:
            BuildError: A value is refused.
        """
        options: dict[str, Any] = {}
        reasons: list[tuple[KeyPath, str]] = []
        for field in fields(model):
            if field.name in value and field.name not in leave:
                try:
                    options[field.name] = self._converter.structure(
                        _number_of(value[field.name], field.name), field.type
                    )
                except Exception as error:  # noqa: BLE001 - whatever a plugin's type raises concerns this value
                    reasons += [((field.name, *path), reason) for path, reason in reasons_of(error)]
        if reasons:
            raise BuildError(reasons)
        return options

    def _new_converter(self) -> cattrs.Converter:
        import cattrs

        converter = cattrs.Converter()
        converter.register_structure_hook_func(is_model, lambda value, model: self.build(model, value))
        converter.register_structure_hook_func(_is_any, lambda value, _type: plain(value))
        converter.register_structure_hook_func(_is_choice, self._union_member)
        converter.register_structure_hook_func(_is_texts, _texts)
        converter.register_structure_hook(str, lambda value, _type: plain(value))
        converter.register_structure_hook(Secret, _secret)
        converter.register_structure_hook(Path, lambda value, _type: self._folder / Path(value).expanduser())
        converter.register_structure_hook(datetime.timedelta, _duration)
        converter.register_structure_hook(datetime.datetime, lambda value, _type: _time(value))
        converter.register_structure_hook(datetime.date, lambda value, _type: _date(value))
        return converter

    def _union_member(self, value: Any, union: Any) -> Any:
        """The member of a union whose schema the value fits; the first one if several do."""
        if value is None:
            return None
        members = typing.get_args(union)
        if str in members and isinstance(value, str) and "://" in value:
            # A path that may also be a URL: as a path it would lose a slash.
            return plain(value)
        fitting = [member for member in members if _fits_member(value, member)]
        fitting += [member for member in members if isinstance(value, str) and _is_texts(member)]
        if fitting:
            return self._converter.structure(value, fitting[0])
        raise ValueError("fits none of the types that it may have")


@lru_cache(maxsize=8)
def builder_for(folder: Path) -> OptionsBuilder:
    """The builder for files of a folder, made once: making a converter takes longer than building most files."""
    return OptionsBuilder(folder)


def reasons_of(error: BaseException) -> list[tuple[KeyPath, str]]:
    """Why a value was refused, with paths into it."""
    if isinstance(error, BuildError):
        return error.reasons
    if isinstance(error, ConfigurationError):
        return [(error.path, error.message)]
    if isinstance(error, BaseExceptionGroup):
        return [
            (_noted_path(exception) + path, reason)
            for exception in error.exceptions
            for path, reason in reasons_of(exception)
        ]
    return [((), _reason(error))]


def _noted_path(error: BaseException) -> KeyPath:
    """The index or key that cattrs noted on an error inside a list or mapping."""
    for note in getattr(error, "__notes__", ()):
        index = getattr(note, "index", None)
        if index is not None:
            return (index,)
    return ()


def _reason(error: BaseException) -> str:
    """The sentence of an error; attrs puts more than that into ``args``."""
    if isinstance(error, KeyError) or not error.args or not isinstance(error.args[0], str):
        return f"{type(error).__name__}: {error}"
    return str(error.args[0])


def create(model: type, options: Mapping[str, Any]) -> Any:
    """An object of the class.

    Raises:
        BuildError: It refuses an option; the error has all refused ones.
    """
    try:
        return model(**options)
    except ConfigurationError as error:
        raise BuildError([(error.path, error.message)]) from error
    except (ValueError, TypeError) as error:
        raise BuildError(_refused(model, options) or [((), _reason(error))]) from error


def _refused(model: type, options: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    """Run each option's validator alone, because the class stops at the first one that refuses."""
    instance: Any = object.__new__(model)
    reasons: list[tuple[KeyPath, str]] = []
    for option in fields(model):
        try:
            value = options[option.name] if option.name in options else _default(option.attribute, instance)
            converter: Any = option.attribute.converter
            value = converter(value) if callable(converter) else value
            object.__setattr__(instance, option.attribute.name, value)
        except (ValueError, TypeError) as error:
            reasons.append(((option.name,), _reason(error)))
    refusing = {path[0] for path, _reason_text in reasons}
    for option in fields(model):
        if option.attribute.validator is not None and option.name not in refusing:
            try:
                option.attribute.validator(instance, option.attribute, getattr(instance, option.attribute.name))
            except (ValueError, TypeError) as error:
                reasons.append(((option.name,), _reason(error)))
    return reasons


def _default(attribute: attrs.Attribute[Any], instance: Any) -> Any:
    default: Any = attribute.default
    if not hasattr(default, "takes_self"):
        return default
    return default.factory(instance) if default.takes_self else default.factory()


def _number_of(value: Any, name: str) -> Any:
    """The number of bytes or seconds that a text such as ``64 MiB`` stands for."""
    if not isinstance(value, str) or not (is_size(name) or is_duration(name)):
        return value
    return size_bytes(value) if is_size(name) else duration_seconds(value)


def plain(value: Any) -> Any:
    """The value without ``ExternalText``: plain text in its place."""
    if isinstance(value, ExternalText):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _secret(value: Any, _type: Any) -> Secret:
    reference = getattr(value, "reference", None)
    return Secret(str(value)) if reference is None else Secret.from_reference(reference, str(value))


def _duration(value: Any, _type: Any) -> datetime.timedelta:
    return datetime.timedelta(seconds=duration_seconds(value) if isinstance(value, str) else value)


def _date(value: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"expected a date such as 2026-01-31, got {quoted(value)}") from None


def _time(value: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"expected a time such as 2026-01-31T08:00:00Z, got {quoted(value)}") from None
    if time.tzinfo is None:
        raise ValueError(f'"{value}" has no time zone; add Z for UTC, or an offset such as +02:00')
    return time


def _is_any(kind: Any) -> bool:
    return kind is Any or kind is object


def _is_choice(kind: Any) -> bool:
    return typing.get_origin(kind) in {typing.Union, types.UnionType}


def _is_texts(kind: Any) -> bool:
    return typing.get_origin(kind) in {tuple, list} and typing.get_args(kind)[0] is str


def _texts(value: Any, kind: Any) -> Any:
    """A list of texts; one text stands for a list of itself where the schema allows that."""
    items = [str(value)] if isinstance(value, str) else [str(item) for item in value]
    return typing.get_origin(kind)(items)


def _fits_member(value: Any, member: Any) -> bool:
    schema, defs = _member(member)
    return fits(schema, value, defs)


@lru_cache(maxsize=256)
def _member(member: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    writer = SchemaWriter(special=OPTION_SCHEMAS)
    return writer.kind(member), writer.defs
