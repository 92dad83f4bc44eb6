"""Sanitizes text from outside, such as file names and answers: escapes control characters, hides secrets in errors.

A column, a file name, a server's answer or a queue's file may hold anything: sequences that command a terminal,
characters that reverse the order of a line, line ends behind which a text looks like a line of ours.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

#: Categories of Unicode that are invisible, or that a terminal obeys: controls, formats such as the bidirectional ones,
#: halves of pairs, ends of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}

_KNOWN = r"(?:https?|gs|duckdb|bigquery|postgresql|postgresql\+psycopg2)"
#: Addresses without user, password and query, of kinds that have no secret in their path.
URL_WITHOUT_SECRET = re.compile(
    rf"(?:{_KNOWN}://(?:[^@?#/:\[]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?(?:/[^@?#]*)?|file:[^@?#]*)"
)

#: A value in quotes, as ``repr`` writes it, with the scheme of an address.
_QUOTED = re.compile(r"""(?<!\w)(['"])(([A-Za-z][\w+.-]*://)?(?:\\.|(?!\1)[^\\])*)\1(?!\w)""")
#: An address of a kind that has its secret anywhere, and a password in any other; those of examples are none.
_OTHER = re.compile(rf"(?<![^\s=(])(?!{_KNOWN}:|file:)[^\s'\"=(]*://(?!(?:user:password@)?host\b)[^\s'\"…]+")
_PASSWORD = re.compile(r"://(?!user:password@)[^\s/@'\"]*:[^\s@'\"]*@")

#: Characters of the longest line about an error.
MAX_LENGTH = 1200

#: Characters that look like those of HTML and are none.
_NO_HTML = str.maketrans({"<": "\u2039", ">": "\u203a"})


def printable(text: str, keep: str = "") -> str:
    """The text with every invisible character written as its number, such as ``\\u001b``.

    ``keep`` are characters that stay, such as the line end. What is JSON stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in _INVISIBLE and char not in keep else char
        for char in text
    )


def one_line(text: object) -> str:
    """The same on one line: line ends and tabs become blanks."""
    return printable(re.sub(r" *[\r\n\t]+ *", " ", str(text)).strip())


def error_line(error: object) -> str:
    """One line about an error, without secrets, and shortened if it is very long.

    An address in quotes is a value of the user. It may hold a secret where none is expected, or be misspelt.
    """

    def shown(found: re.Match[str]) -> str:
        quote, value, scheme = found.groups(default="")
        is_address = "//" in value or (":" in value and "@" in value)
        return f"{quote}{scheme}…{quote}" if is_address and not URL_WITHOUT_SECRET.fullmatch(value) else found[0]

    text = _QUOTED.sub(shown, one_line(error))
    text = _OTHER.sub("…", text)
    text = _PASSWORD.sub("://…@", text)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH * 2 // 3]} … {text[-MAX_LENGTH // 3 :]}"


def sanitize_for_luigid(value: Any) -> Any:
    """The data for luigid with all texts escaped: its page takes some of them for HTML, and one for a link."""
    if isinstance(value, str):
        return printable(value.translate(_NO_HTML), keep="\n\t")
    if isinstance(value, dict):
        return {
            sanitize_for_luigid(name): None
            if name == "tracking_url" and not _is_link(one)
            else sanitize_for_luigid(one)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [sanitize_for_luigid(one) for one in value]
    return value


def _is_link(url: Any) -> bool:
    """Whether a browser opens it as a page, and does not run it as a script."""
    return isinstance(url, str) and re.match(r"(https?|file|gs):", url, re.IGNORECASE) is not None
