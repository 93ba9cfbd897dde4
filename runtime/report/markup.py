"""HTML by small functions: what is text is escaped, whatever names bundles have."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

EMPTY = frozenset({"br", "link", "meta", "path"})
"""Elements without content, written ``<br />``: pages are well-formed XML too."""

Attribute = str | float | bool | None


class Html(str):
    """Markup, as opposed to text that has yet to be escaped."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: Attribute) -> Html:
    """An element of a page.

    Args:
        name: ``td``.
        children: `Html` as it is; text is escaped.
        attributes: ``data_row=1`` is ``data-row="1"``, ``class_`` is ``class``; None leaves one
            out, True repeats its name, and numbers have all their digits.
    """
    listed = "".join(
        f' {_attribute(key)}="{_value(_attribute(key), value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in EMPTY:
        return Html(f"<{name}{listed} />")
    return Html(f"<{name}{listed}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Markup and text, one after another."""
    return Html("".join(child if isinstance(child, Html) else text(child) for child in children))


def text(words: str) -> Html:
    """Text as markup."""
    return Html(escape(printable(words)))


def printable(words: str) -> str:
    """Text that neither a terminal obeys nor XML refuses."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _value(name: str, value: str | float | bool) -> str:
    if value is True:
        return name
    return text(value) if isinstance(value, str) else repr(value)
