"""Text that users wrote, made safe to print: in logs, tables, metrics' labels and messages."""

import unicodedata

_INVISIBLE = frozenset(
    chr(code)
    for code in (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0, 0x16FE4),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    )
)
"""Letters and marks that draw nothing although Unicode files them under printable ones."""


def printable(text: str, limit: int = 200) -> str:
    """``text`` on one line and in at most ``limit`` (at least 1) characters, each of them visible.

    Control characters, line breaks, bidirectional and zero-width characters, lone surrogates and unassigned code
    points become ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``; a backslash is doubled, so that what was escaped cannot
    be forged. What is too long ends in ``…``. Never raises, and looks at no more than ``limit`` + 1 characters.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and "\\" not in text:
        return text  # as nearly all are
    parts: list[str] = []
    length = 0
    for char in text[: limit + 1]:
        part = _escape(char)
        if length + len(part) > limit:
            return _shorten(parts, limit)
        parts.append(part)
        length += len(part)
    return "".join(parts)


def printable_once(text: str, limit: int = 200) -> str:
    """The same for what may have been made so already: no backslash of an escape is doubled."""
    bare = text.replace("\\", "/")
    return text if printable(bare, limit) == bare else printable(text, limit)


def _shorten(parts: list[str], limit: int) -> str:
    """As many whole parts as leave room for the mark of something left out."""
    while parts and sum(map(len, parts)) > limit - 1:
        parts.pop()
    return "".join(parts) + "…"


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable() and char not in _INVISIBLE and unicodedata.category(char) != "Me":
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
