"""Where buckets and datasets are, and from which place BigQuery loads into which.

A region inside the other's multi-region is fine, disjoint places are not; of a place that is not known here the service
decides. Pure functions.
"""

from __future__ import annotations

import re

#: Multi-regions and the regions that they are made of. London and Zurich are in Europe but not in the EU.
_MULTI_REGIONS: dict[str, re.Pattern[str]] = {
    "us": re.compile(r"us-\w+\d+"),
    "eu": re.compile(r"europe-(?!west2$|west6$)\w+\d+"),
    "asia": re.compile(r"asia-\w+\d+"),
}
#: Dual-regions of Cloud Storage, their members, and where BigQuery keeps a dataset that suits them.
_DUAL_REGIONS: dict[str, tuple[frozenset[str], str]] = {
    "nam4": (frozenset({"us-central1", "us-east1"}), "US"),
    "eur4": (frozenset({"europe-north1", "europe-west4"}), "EU"),
    "asia1": (frozenset({"asia-northeast1", "asia-northeast2"}), "asia-northeast1"),
}
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")


def are_disjoint(bucket: str | None, dataset: str | None) -> bool:
    """Whether a bucket and a dataset are surely in places that share no region; False where either is not known."""
    first, second = (place.lower() if place else "" for place in (bucket, dataset))
    if not (_is_known(first) and _is_known(second)) or first == second:
        return False
    return not (_meets(first, second) or _meets(second, first))


def location_for(bucket: str | None, preferred: str) -> str:
    """Where to make a dataset for a lake in ``bucket``: the preferred place if one can load from there to it."""
    if not bucket or not are_disjoint(bucket, preferred):
        return preferred
    dual = _DUAL_REGIONS.get(bucket.lower())
    if dual:
        return dual[1]
    return bucket.upper() if bucket.lower() in _MULTI_REGIONS else bucket.lower()


def _is_known(place: str) -> bool:
    return place in _MULTI_REGIONS or place in _DUAL_REGIONS or bool(_REGION.fullmatch(place))


def _meets(outer: str, inner: str) -> bool:
    """Whether some region of ``inner`` is one of ``outer``'s."""
    regions = _DUAL_REGIONS[inner][0] if inner in _DUAL_REGIONS else {inner}
    if outer in _MULTI_REGIONS:
        return any(_MULTI_REGIONS[outer].fullmatch(region) for region in regions)
    if outer in _DUAL_REGIONS:
        return not regions.isdisjoint(_DUAL_REGIONS[outer][0])
    return False
