"""docs/columns.md, made from the declarations: ``python -m pipeline.datasets.document > docs/columns.md``."""

from __future__ import annotations

from . import DATASETS
from .schema import Column, Dataset


def text() -> str:
    """All datasets with all columns, as Markdown."""
    head = (
        "# The columns\n\n"
        "Made from `pipeline/datasets/` by `python -m pipeline.datasets.document`. Every column may be null:\n"
        "a month's file may not have it. Monthly tables also carry `file_month`, the month of the file.\n"
    )
    return head + "".join(_dataset(dataset) for dataset in DATASETS.values())


def _dataset(dataset: Dataset) -> str:
    first = f", from {dataset.first_month:%Y-%m}" if dataset.first_month else ""
    rows = "".join(_row(column) for column in dataset.columns)
    return (
        f"\n## {dataset.title}\n\nTable `{dataset.table}`{first}.\n\n"
        f"| column | type | meaning | other names |\n|---|---|---|---|\n{rows}"
    )


def _row(column: Column) -> str:
    since = f" Since {column.since:%Y-%m}." if column.since else ""
    names = ", ".join(f"`{name}`" for name in column.aliases)
    return f"| `{column.name}` | {column.type} | {column.description.replace('|', '/')}{since} | {names} |\n"


if __name__ == "__main__":
    print(text(), end="")
