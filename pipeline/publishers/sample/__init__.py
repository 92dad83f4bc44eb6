"""The package of the sample publisher: ``publisher`` offers its months, ``generator`` makes their files."""
