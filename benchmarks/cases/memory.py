"""Peak memory of every stage, of a month of ordinary size and of one of the largest, in the same layout.

Every stage runs in a process of its own, one after the other in one folder, as Luigi's workers would.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from ..case import Bench, Case, Results, Skip, figure_at_most
from ..contest import Measured, measure
from ..inputs import Published
from ..project import stages_of
from ..servers import Databases, postgres

SMALL, LARGE = 1_400_000, 24_000_000

SMALL_PEAK, LARGE_PEAK = "peak at 1.4 million rows", "peak at 24 million rows"
GROWTH = "peak of a stage at 24 against 1.4 million rows"


def _run(bench: Bench) -> Results:
    sizes = (SMALL, LARGE) if bench.is_full else (SMALL,)
    found: dict[str, Measured] = {}
    peaks: dict[int, dict[str, float]] = {}
    inputs = [bench.inputs.months("fhvhv", "2025-01", rows, "tlc") for rows in sizes]
    for published in inputs:
        assert published.rows
        stages = _stages(bench, published)
        peaks[published.rows] = {name: measured.peak_bytes / 1e6 for name, measured in stages.items()}
        found |= {f"{name}, {published.rows / 1e6:g} M rows": measured for name, measured in stages.items()}
    figures = {SMALL_PEAK: max(peaks[SMALL].values())}
    if bench.is_full:
        figures[LARGE_PEAK] = max(peaks[LARGE].values())
        figures[GROWTH] = max(peak / peaks[SMALL][name] for name, peak in peaks[LARGE].items())
    return Results("; ".join(map(str, inputs)), found, figures)


def _stages(bench: Bench, published: Published) -> dict[str, Measured]:
    """All stages of the month with what they took, by name."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Measured] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=bench.folder, prefix="memory-")))
        names = ["Download", "Clean", "WriteParquet", "Upload", "Load"]
        for name in names:
            label = "Load DuckDB" if name == "Load" else name
            found[label] = measure(stages_of(published, label, [name]), folder)
        try:
            url = Databases(stack.enter_context(postgres())).fresh()
        except Skip:
            return found
        ours = stages_of(published, "Load PostgreSQL", ["Load"], changes=lambda folder: {"PIPELINE_WAREHOUSE_URL": url})
        found[ours.name] = measure(ours, folder)
    return found


CASES = (
    Case(
        "memory",
        "peak memory of any stage",
        (
            figure_at_most(SMALL_PEAK, 400, " MB"),
            figure_at_most(LARGE_PEAK, 400, " MB"),
            figure_at_most(GROWTH, 1.2, "x"),
        ),
        _run,
    ),
)
