"""Every run in one list, whoever started it, and its end before its time; through the real commands."""

from __future__ import annotations

import pytest

from .conftest import Project

MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")


@pytest.mark.parametrize("name", ["x" * 300, "../../../a b/ü"])
def test_id_that_cannot_name_a_file_is_refused_by_every_command(project: Project, name: str) -> None:
    project.environment["PIPELINE_RUN_ID"] = name
    for done in (
        project.luigi(*MONTH),
        project.pipeline("cron", *MONTH),
        project.pipeline("submit", *MONTH),
        project.pipeline("runs"),
    ):
        assert done.returncode == 2, done.stdout
        assert done.stdout.count("\n") == 1 and "error: environment variable PIPELINE_RUN_ID: " in done.stdout
    doctor = project.pipeline("doctor")
    assert doctor.returncode == 1 and "FAIL  settings   environment variable PIPELINE_RUN_ID: " in doctor.stdout
    assert not list(project.folder.iterdir()), "nothing was done"
