"""Which partitions are complete, which are to be done, and why."""
