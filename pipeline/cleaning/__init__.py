"""Raw bytes in; rows in the canonical schema and rejects out.

Pure functions on binary streams and Arrow batches, which know nothing of Luigi, settings, paths or clouds:

* ``clean`` streams one file. Its memory is bounded by a block of the file, whatever the size of the month.
* ``header`` maps the names of any era to the canonical columns.
* ``csv_reader`` and ``parquet_reader`` turn a stream into chunks of typed rows and unreadable rows.
* ``values`` is the only place that says what a text or number means in a column.
* ``rules`` are the checks on readable rows that a user can switch on and off.

Every row read leaves as a row written or as a reject; ``clean`` checks the sum before it ends.
"""
