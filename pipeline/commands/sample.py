"""``python -m pipeline sample``: make synthetic months in the layout of a publisher."""

from __future__ import annotations

from ..publishers.sample.generator import add_arguments as add_arguments
from ..publishers.sample.generator import main

HELP = "make synthetic months in a publisher's layout"

run = main
