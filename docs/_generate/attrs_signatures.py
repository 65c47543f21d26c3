"""An extension of griffe: attrs classes get the signature that attrs gives them at run time."""

from __future__ import annotations

from typing import Any

import griffe

_DECORATORS = {"attrs.define", "attrs.frozen", "attrs.mutable"}


class AttrsSignatures(griffe.Extension):
    """Reads the fields of a class as attrs would; the pages show no signature of such a class without it."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Add the `__init__` that attrs writes, once the class is read."""
        decorators = [one for one in cls.decorators if one.callable_path in _DECORATORS]
        if not decorators or "__init__" in cls.members:
            return
        all_by_name = _arguments(decorators[0].value).get("kw_only") == "True"
        taken = [
            parameter
            for member in cls.members.values()
            if isinstance(member, griffe.Attribute) and (parameter := _parameter(member, all_by_name))
        ]
        taken.sort(key=lambda one: one.kind is griffe.ParameterKind.keyword_only)
        this = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        init = griffe.Function("__init__", parameters=griffe.Parameters(this, *taken), returns="None", parent=cls)
        cls.set_member("__init__", init)


def _parameter(field: griffe.Attribute, by_name: bool) -> griffe.Parameter | None:
    arguments = _arguments(field.value)
    # A field is annotated and belongs to the instance; the rest are constants and properties.
    if field.annotation is None or "property" in field.labels or "instance-attribute" not in field.labels:
        return None
    if arguments.get("init") == "False":
        return None
    return griffe.Parameter(
        field.name.lstrip("_"),
        annotation=field.annotation,
        kind=griffe.ParameterKind.keyword_only
        if by_name or arguments.get("kw_only") == "True"
        else griffe.ParameterKind.positional_or_keyword,
        default=_default(field.value, arguments),
    )


def _default(value: str | griffe.Expr | None, arguments: dict[str, str]) -> str | griffe.Expr | None:
    if "factory" in arguments:
        return f"{arguments['factory']}()"
    return arguments.get("default") if _is_field(value) else value


def _is_field(value: str | griffe.Expr | None) -> bool:
    return isinstance(value, griffe.ExprCall) and value.canonical_path == "attrs.field"


def _arguments(call: str | griffe.Expr | None) -> dict[str, str]:
    """The keyword arguments of a call, as they are written."""
    if not isinstance(call, griffe.ExprCall):
        return {}
    return {one.name: str(one.value) for one in call.arguments if isinstance(one, griffe.ExprKeyword)}
