"""The table on the terminal, the same as JSON, and the comparison with an earlier result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .case import OURS, Case, Results, plain

#: Changes of a figure that are told: less is noise.
TOLD_FROM = 0.02


def judged(case: Case, results: Results) -> dict[str, Any]:
    """The results of a case with its targets, as JSON has them."""
    targets = []
    for target in case.targets:
        value = target.value(results)
        targets.append(
            {
                "what": target.what,
                "value": None if value is None else round(value, 4),
                "unit": target.unit.strip(),
                "target": str(target),
                "met": None if value is None else target.is_met(value),
            }
        )
    return {"what": case.what, **plain(results), "targets": targets}


def skipped(case: Case, reason: str) -> dict[str, Any]:
    """A case that was not run."""
    return {"what": case.what, "skipped": reason, "targets": []}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """One line for each figure that both have and that changed."""
    for name, case in new["cases"].items():
        before = {target["what"]: target for target in old["cases"].get(name, {}).get("targets", [])}
        for target in case["targets"]:
            was, value = before.get(target["what"], {}).get("value"), target["value"]
            if was is None or value is None:
                continue
            change = (value - was) / abs(was) if was else float(value != was)
            if abs(change) >= TOLD_FROM:
                unit = target["unit"]
                yield f"{name}, {target['what']}: {was:.2f} {unit} -> {value:.2f} {unit} ({change:+.0%})"


def show(document: Mapping[str, Any]) -> None:
    """Print machine, versions and the table."""
    console = Console(width=None if Console().is_terminal else 150)
    about = document["machine"]
    console.print(
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB, {about['os']}, Python {about['python']}, "
        f"load {about['load_average'][0]} at the start",
        highlight=False,
    )
    console.print(", ".join(f"{name} {number}" for name, number in document["versions"].items()), highlight=False)
    table = Table(show_lines=True)
    for name in ("case", "seconds (peak MB)", "figure", "target", ""):
        table.add_column(name, overflow="fold")
    for name, case in document["cases"].items():
        if "skipped" in case:
            table.add_row(f"{name}\n{case['what']}", escape(f"not run: {case['skipped']}"), "", "", "")
            continue
        figures = [
            "not measured" if target["value"] is None else f"{target['value']:.2f}{target['unit']} {target['what']}"
            for target in case["targets"]
        ]
        table.add_row(
            f"[bold]{name}[/] {case['what']}\n{case['input']}",
            "\n".join(_contestant(who, one) for who, one in case["contestants"].items()),
            "\n".join(figures),
            "\n".join(target["target"] for target in case["targets"]),
            "\n".join({True: "yes", False: "[bold]NO[/]", None: "-"}[target["met"]] for target in case["targets"]),
        )
    console.print(table)


def _contestant(name: str, one: Mapping[str, Any]) -> str:
    rows = f" for {one['rows']:,} rows" if "rows" in one else ""
    memory = f" ({one['peak_mb']:.0f})" if one["peak_mb"] else ""
    text = f"{name} {one['best']:.2f}{rows}{memory}"
    return f"[bold]{text}[/]" if name == OURS else text


def load(path: Path) -> dict[str, Any] | None:
    """An earlier result, if there is one."""
    return dict(json.loads(path.read_text())) if path.exists() else None


def save(document: Mapping[str, Any], path: Path) -> None:
    """Write the result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
