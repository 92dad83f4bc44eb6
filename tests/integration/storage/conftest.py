"""Fixtures of the storage tests: a bucket of Cloud Storage."""

from tests.servers.gcs import gcs_bucket, gcs_server
from tests.unit.lake.conftest import make_month

__all__ = ["gcs_bucket", "gcs_server", "make_month"]
