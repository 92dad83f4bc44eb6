"""The package of the PostgreSQL backend; the class is in ``warehouse``."""
