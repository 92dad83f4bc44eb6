"""Text from outside without control characters and secrets, before a terminal, a log or luigid gets it.

A column, a file name, a server's answer or a queue's file may hold anything: sequences that command a terminal,
characters that reverse the order of a line, line ends behind which a text looks like a line of ours.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

#: Categories of Unicode that nobody sees, or that a terminal obeys: controls, formats such as the bidirectional ones,
#: halves of pairs, ends of lines and paragraphs.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}

_KNOWN = r"(?:https?|gs|duckdb|bigquery|postgresql|postgresql\+psycopg2)"
#: Addresses without user, password and query, of kinds that have no secret in their path.
HARMLESS = re.compile(rf"(?:{_KNOWN}://(?:[^@?#/:\[]*|\[[0-9A-Fa-f:.]+\])(?::\d*)?(?:/[^@?#]*)?|file:[^@?#]*)")

#: A value in quotes, as ``repr`` writes it, with the scheme of an address.
_QUOTED = re.compile(r"""(?<!\w)(['"])(([A-Za-z][\w+.-]*://)?(?:\\.|(?!\1)[^\\])*)\1(?!\w)""")
#: An address of a kind that has its secret anywhere, and a password in any other; those of examples are none.
_OTHER = re.compile(rf"(?<![^\s=(])(?!{_KNOWN}:|file:)[^\s'\"=(]*://(?!(?:user:password@)?host\b)[^\s'\"…]+")
_PASSWORD = re.compile(r"://(?!user:password@)[^\s/@'\"]*:[^\s@'\"]*@")

#: Characters of the longest line about a mistake.
LONGEST = 1200

#: Signs that look like those of HTML and are none.
_NO_HTML = str.maketrans({"<": "\u2039", ">": "\u203a"})


def plain(text: str, keep: str = "") -> str:
    """The text with every character that nobody sees written as its number, such as ``\\u001b``.

    ``keep`` are characters that stay, such as the line end. What is JSON stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in _UNSEEN and char not in keep else char for char in text
    )


def one_line(text: object) -> str:
    """The same on one line: line ends and tabs become blanks."""
    return plain(re.sub(r" *[\r\n\t]+ *", " ", str(text)).strip())


def mistake_line(error: object) -> str:
    """The one line that says what is wrong, without secrets, and without all of a value that is very long.

    An address in quotes is a value that was given, maybe in a place where no secret is expected, and maybe misspelt.
    """

    def shown(found: re.Match[str]) -> str:
        quote, value, scheme = found.groups(default="")
        is_address = "//" in value or (":" in value and "@" in value)
        return f"{quote}{scheme}…{quote}" if is_address and not HARMLESS.fullmatch(value) else found[0]

    text = _QUOTED.sub(shown, one_line(error))
    text = _OTHER.sub("…", text)
    text = _PASSWORD.sub("://…@", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 3 :]}"


def shown_by_luigid(value: Any) -> Any:
    """What luigid gets, with all its texts made harmless: its page takes some of them for HTML, and one for a link."""
    if isinstance(value, str):
        return plain(value.translate(_NO_HTML), keep="\n\t")
    if isinstance(value, dict):
        return {
            shown_by_luigid(name): None if name == "tracking_url" and not _is_link(one) else shown_by_luigid(one)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [shown_by_luigid(one) for one in value]
    return value


def _is_link(url: Any) -> bool:
    """Whether a browser opens it as a page, and does not run it as a script."""
    return isinstance(url, str) and re.match(r"(https?|file|gs):", url, re.IGNORECASE) is not None
