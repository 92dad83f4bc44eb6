"""Long, seeded attacks on the pipeline: ``python -m endurance``. See README.md in this folder."""
