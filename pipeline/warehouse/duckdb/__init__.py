"""DuckDB: one file on this machine; each load is one transaction."""
