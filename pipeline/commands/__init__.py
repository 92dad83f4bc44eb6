"""The verbs of ``python -m pipeline``, one file each."""
