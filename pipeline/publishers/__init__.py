"""Publishers of the files: opens one by name and address, or by its label.

A publisher offers the same four datasets as all others. ``catalog`` has the three names (tlc, dtc, sample) with their
addresses and layouts. The scheme of the address decides on the class: ``web`` (https:, http:), ``folder`` (file:) or
``sample`` (made on this machine). ``base`` is the interface of all three.
"""

from __future__ import annotations

from ..errors import UsageError
from ..storage.base import without_secrets
from .base import Publisher
from .catalog import CATALOGS
from .folder import FolderPublisher
from .sample.publisher import SamplePublisher
from .version import Version
from .web import WebPublisher

__all__ = ["Publisher", "Version", "from_label", "open_publisher"]

#: The class of each scheme.
_CLASSES: dict[str, type[Publisher]] = {
    "https": WebPublisher,
    "http": WebPublisher,
    "file": FolderPublisher,
    "sample": SamplePublisher,
}


def open_publisher(name: str, url: str = "") -> Publisher:
    """The publisher of that name, at its own address or at ``url``.

    ``url`` is ``https:``, ``http:`` or ``file:`` (``file:relative`` to the current directory, ``file:/absolute``,
    ``file:///absolute``, percent-encoded), or for ``sample`` also ``sample:?rows=20000&seed=1`` with any of the keys
    ``rows`` (per month), ``seed`` and ``layout`` (``tlc`` or ``dtc``). ``UsageError`` for everything else.
    """
    if name not in CATALOGS:
        raise UsageError(f"[publisher] name: {name!r} is none of {', '.join(CATALOGS)}")
    catalog = CATALOGS[name]
    url = url.strip() or catalog.address
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    if scheme in _CLASSES:
        return _CLASSES[scheme].open(catalog, url)
    shown = without_secrets(url)
    raise UsageError(f"[publisher] url: {shown!r} must begin with https:, http: or file: (a folder is file:{shown})")


def from_label(label: str) -> Publisher:
    """The publisher of a label, which holds no credentials."""
    name, _, url = label.partition("=")
    return open_publisher(name, url)
