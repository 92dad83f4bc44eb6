"""The taxi zones that location ids refer to: one small table, without months."""

from __future__ import annotations

from .schema import Column, Dataset

#: The ids that every version of the table has had. A table from the web that lacks one is cut off or another one.
KNOWN_IDS = frozenset(range(1, 266))

#: ``N/A``, ``NA`` and ``NV`` in these columns are words of TLC's, and stay text.
ZONES = Dataset(
    name="zones",
    title="Taxi zones",
    table="taxi_zones",
    required=("LocationID", "Borough", "Zone", "service_zone"),
    key="LocationID",
    columns=(
        Column("LocationID", "int64", "Taxi zone; 264 and 265 stand for unknown and outside of the city"),
        Column("Borough", "string", "Borough of the zone, or EWR for Newark Airport"),
        Column("Zone", "string", "Name of the zone"),
        Column("service_zone", "string", "Who may pick up there: Yellow Zone, Boro Zone, Airports or EWR"),
    ),
)
