"""PostgreSQL 12 or later: one partition per month, each load one transaction."""
