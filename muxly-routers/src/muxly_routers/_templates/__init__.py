"""Texts and JSON documents with places for the values of a record; no code, no attributes, no items.

A place is ``{field}``. Inside the braces stand, in this order: the field's name as it is, also with
dots and spaces, or ``"quoted"`` where it holds one of ``:|{}``; a format after a colon,
``{amount:,.2f}`` or ``{day:%d %b}``; and after a bar the text for null, ``{name|nobody}``. Where no
field is called ``a.b``, ``{a.b}`` is the field ``b`` of the record in ``a``. ``{{`` and ``}}`` are
braces.
"""

from muxly_routers._templates.template import Escape, Template, UnknownFieldError

__all__ = ["Escape", "Template", "UnknownFieldError"]
