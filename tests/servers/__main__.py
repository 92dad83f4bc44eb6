"""A server of the tests by itself, as docker-compose.yml's profile local-cloud runs it.

python -m tests.servers bigquery --host 127.0.0.1 --port 9050
"""

from __future__ import annotations

import argparse
import threading

from .bigquery import BigQueryServer


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.servers", description="An emulator that forgets all at its end."
    )
    parser.add_argument("server", choices=["bigquery"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9050)
    args = parser.parse_args()
    with BigQueryServer(address=(args.host, args.port)):
        print(f"BigQuery emulator on {args.host}:{args.port}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
