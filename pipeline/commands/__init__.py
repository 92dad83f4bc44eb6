"""The verbs of ``python -m pipeline``, one file each.

A verb's file has ``HELP``, one line about it; ``add_arguments``, its flags beside the settings; and ``run``, which does
the work and returns the exit code. ``__main__`` lists the files.
"""
