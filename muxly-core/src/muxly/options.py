"""Options of a component: the body of its class is the model.

::

    class Countries(muxly.Connector):
        base_url: str = muxly.option("Root of the API.", default="https://restcountries.com/v3.1")
        token: muxly.Secret = muxly.option("Access token.")
        page: int = 100

Each annotated name is an option: type, default, validation, its place in the JSON Schema and
in the generated reference all come from that line. Names that begin with an underscore and
``ClassVar`` are not options.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform, overload

import attrs

from muxly import _references
from muxly._annotations import chosen
from muxly.errors import ConfigurationError

__all__ = ["Options", "Secret", "option"]

T = TypeVar("T")
HELP = "muxly.help"


class Secret:
    """A value that must not be seen: a password, a token, a URL with credentials.

    Not a ``str`` on purpose: it cannot be joined, formatted or serialised by accident.

    Args:
        value: The secret itself. Such a secret refuses to be pickled.
    """

    __slots__ = ("_reference", "_value")

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"a secret is text, not {type(value).__name__}")
        self._value: str | None = value
        self._reference: str | None = None

    @classmethod
    def from_reference(cls, reference: str, value: str | None = None) -> Secret:
        """A secret kept elsewhere: ``"${NAME}"`` or ``"${file:/run/secrets/x}"``.

        Args:
            reference: Text with references; this is what pickles.
            value: The resolved text, if it is known already.
        """
        secret = cls.__new__(cls)
        secret._reference, secret._value = reference, value
        return secret

    @property
    def reference(self) -> str | None:
        """Where the secret is kept, safe to show; None for a bare value."""
        return self._reference

    def reveal(self) -> str:
        """The secret itself.

        Raises:
            ConfigurationError: The reference cannot be resolved on this machine.
        """
        if self._value is None:
            assert self._reference is not None
            self._value = _references.resolve(self._reference)
        return self._value

    def __repr__(self) -> str:
        shown = "***" if self._reference is None else _references.masked(self._reference)
        return f"Secret({shown!r})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        import hmac

        if not isinstance(other, Secret):
            return NotImplemented
        if self._reference is not None and self._reference == other._reference:
            return True  # also where the reference cannot be resolved
        return hmac.compare_digest(self.reveal().encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reference is None:
            raise ConfigurationError(
                "a literal secret cannot be passed to another process; keep it in the environment or a file "
                "and write ${NAME} or ${file:/path} instead"
            )
        return Secret.from_reference, (self._reference,)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self


@overload
def option(help: str, *, default: T, validator: Callable[[Any, Any, Any], Any] | None = None) -> T: ...
@overload
def option(help: str, *, factory: Callable[[], T], validator: Callable[[Any, Any, Any], Any] | None = None) -> T: ...
@overload
def option(help: str, *, validator: Callable[[Any, Any, Any], Any] | None = None) -> Any: ...
def option(
    help: str,
    *,
    default: Any = attrs.NOTHING,
    factory: Callable[[], Any] | None = None,
    validator: Callable[[Any, Any, Any], Any] | None = None,
) -> Any:
    """One option of a component.

    Args:
        help: One sentence for the reference, the schema and error messages.
        default: Its value when not given; without default and factory it is required.
        factory: Makes the default, for lists and dicts.
        validator: ``validator(instance, attribute, value)`` raising ``ValueError`` with what
            is wrong; the validators of ``attrs.validators`` fit, and those for ranges,
            lengths, patterns and choices also reach the JSON Schema.
    """
    if factory is not None and default is not attrs.NOTHING:
        raise TypeError("an option has a default or a factory, not both")
    if factory is not None:
        return attrs.field(factory=factory, validator=validator, metadata={HELP: help})
    return attrs.field(default=default, validator=validator, metadata={HELP: help})


def _as_secret(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return Secret.from_reference(value) if _references.has_reference(value) else Secret(value)


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


def _in_each(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Convert a value, or what a list or dict holds."""

    def converted(value: Any) -> Any:
        if isinstance(value, list):
            return [converted(item) for item in value]
        if isinstance(value, dict):
            return {key: converted(item) for key, item in value.items()}
        return convert(value)

    return converted


def _converter(annotation: object) -> Callable[[Any], Any] | None:
    """Text may be given where a secret or a path is wanted, also inside a list or dict."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    kinds = {word.rsplit(".", 1)[-1] for word in re.findall(r"[\w.]+", text)}
    if "Secret" in kinds:
        return _in_each(_as_secret)
    return _in_each(_as_path) if "Path" in kinds and "str" not in kinds else None


def _options_only(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Leave out private names, put a class's own options first, convert text to secrets and paths, check choices."""
    public = [attribute for attribute in fields if not attribute.name.startswith("_")]
    public.sort(key=lambda attribute: attribute.inherited)  # type: ignore[attr-defined]  # missing in the stub of attrs
    for attribute in public:
        _refuse_traps(cls, attribute)
    return [_completed(attribute) for attribute in public]


def _completed(attribute: attrs.Attribute[Any]) -> attrs.Attribute[Any]:
    if attribute.converter is None:
        attribute = attribute.evolve(converter=_converter(attribute.type))
    if attribute.inherited:  # type: ignore[attr-defined]  # missing in the stub of attrs
        return attribute  # its own class has added the validator
    own = attribute.validator
    return attribute.evolve(validator=chosen if own is None else attrs.validators.and_(chosen, own))


def _refuse_traps(cls: type, attribute: attrs.Attribute[Any]) -> None:
    """Refuse what would go wrong only later, far from its cause."""
    where = f"{cls.__name__}.{attribute.name}"
    if isinstance(attribute.default, list | dict | set):
        kind = type(attribute.default).__name__
        raise TypeError(f"{where}: all components would share this {kind}; write option(..., factory={kind})")
    known = {field.name for base in cls.__mro__[1:] for field in getattr(base, "__attrs_attrs__", ())}
    if attribute.name not in known and any(attribute.name in vars(base) for base in cls.__mro__[1:]):
        raise TypeError(
            f"{where} is part of the contract and cannot be an option; rename the option, or, to set "
            f"{attribute.name}, omit its annotation or make it a ClassVar"
        )


@dataclass_transform(kw_only_default=True, field_specifiers=(option,))
class Options:
    """A set of options; subclasses become keyword-only attrs classes by being defined.

    Options nest: an option's type may be another ``Options`` class, or a list or dict of one.
    """

    __attrs_attrs__: ClassVar[tuple[Any, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        attrs.define(
            cls,
            auto_attribs=True,  # otherwise one option without a type would make all plain ones disappear
            slots=False,
            kw_only=True,
            eq=True,
            on_setattr=None,
            field_transformer=_options_only,
        )
