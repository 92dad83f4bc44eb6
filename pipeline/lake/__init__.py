"""What lies in the lake: published Parquet files, their rejects and their manifests."""

from __future__ import annotations

from .lake import Lake, Listing
from .manifest import Digest, Manifest, Source

__all__ = ["Digest", "Lake", "Listing", "Manifest", "Source"]
