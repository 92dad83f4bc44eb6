"""The package of the DuckDB backend; the class is in ``warehouse``."""
