"""Keeps a data lake and a warehouse complete with the NYC taxi trip records."""
