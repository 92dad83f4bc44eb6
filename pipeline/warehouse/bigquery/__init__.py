"""The package of the BigQuery backend; the class is in ``warehouse``."""
