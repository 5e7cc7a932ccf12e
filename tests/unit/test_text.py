"""Users' text is made visible before it is shown to anyone."""

import pytest

from wattkeeper.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("power=250W Grüße 電力", "power=250W Grüße 電力"),
        ("a\nb\tc\x1b[31m", r"a\x0ab\x09c\x1b[31m"),
        ("\u202egnp.exe\u200b\ufeff", r"\u202egnp.exe\u200b\ufeff"),
        ("no\xa0break\u2028line", r"no\xa0break\u2028line"),
        (r"\x0a", r"\\x0a"),
        ("\ud800\u3164", r"\ud800\u3164"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_shows_what_would_hide(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_shortens_without_cutting_an_escape() -> None:
    assert printable("abcdef", 6) == "abcdef"
    assert printable("abcdefg", 6) == "abcde…"
    assert printable("ab\n\n\n", 8) == r"ab\x0a…"
    assert printable("\n" * 10**6, 9) == r"\x0a\x0a…"
    assert printable("\n", 1) == "…"
