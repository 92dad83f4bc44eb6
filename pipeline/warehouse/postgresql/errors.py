"""What PostgreSQL's errors mean: which class of ours each becomes, by its SQLSTATE, in one line with the remedy."""

from __future__ import annotations

import re

import psycopg2
import sqlalchemy

from ...errors import PipelineError, WarehouseError, WarehouseUnavailable
from .session import text_of

#: The name of the CHECK that lets a month be attached without a look at its rows.
MONTH_CHECK = "etl_file_month"

USE_UTF8 = "use a database made with ENCODING 'UTF8' TEMPLATE template0"

#: SQLSTATEs, or their beginnings, of which the same call may succeed later.
_TRANSIENT = (
    "08",  # connection
    "40",  # serialization failure, deadlock
    "53",  # too many connections, out of memory
    "55",  # object in use
    "57",  # cancelled, shut down, starting up
    "25P03",  # idle in a transaction for too long
)

#: What some messages say -> what to do about it; before the SQLSTATE is asked.
_PARTICULAR = {
    f'violates check constraint "{MONTH_CHECK}"': "the file has rows of another month; write it again",
    "statement timeout": "see what keeps the server busy, or raise [warehouse] statement_timeout",
    "default partition": "move the rows of that month out of the default partition, or drop it",
    "row-level security": "drop the policy, or make the role of the URL the owner of the table, or one with BYPASSRLS",
}

#: SQLSTATE -> what to do about it; terminal, even where the class as a whole is not.
_REMEDIES = {
    "22P05": f"the encoding of the database cannot hold it: {USE_UTF8}",
    "22021": "PostgreSQL text cannot hold this character; clean it out of the column",
    "23502": "the pipeline fills only its own columns, and those with null where the file has none: give the column a "
    "DEFAULT, or drop its NOT NULL",
    "23503": "make the foreign key DEFERRABLE INITIALLY DEFERRED, or drop it: the table is emptied and filled again",
    "23505": "drop the unique index or constraint: published files repeat rows",
    "23514": "drop the constraint, or reject such rows by a rule of [clean] rules",
    "428C9": "drop the column, or make it a plain one",
    "25006": "name the primary server in the URL, or take default_transaction_read_only from the role and the database",
    "3F000": "python -m pipeline doctor --create makes the schema",
    "42501": "grant the role CREATE on the schema and make it the owner of the tables",
    "42703": "a table of that name with other columns is in the way; rename it",
    "42710": "a type of that name is in the way; rename it",
    "42P17": "detach or drop the partition that holds several months",
    "42P07": "a table of that name is in the way; rename it",
    "53100": "free disk space on the server",
}

#: What a refused connection says -> what to do about it.
_REFUSALS = {
    r"no password supplied|password authentication failed|authentication failed": (
        "check user and password of the URL, PGPASSWORD or the .pgpass file"
    ),
    r"role .* does not exist|not permitted to log in": "create the role with LOGIN or name another one in the URL",
    r"database .* does not exist": "python -m pipeline doctor --create makes it, if the role may create databases",
    r"pg_hba\.conf": "allow this host and role in pg_hba.conf of the server",
    r"conversion between": f"the encoding of the database does not take UTF-8: {USE_UTF8}",
    r"permission denied": "grant the role CONNECT on the database",
    r"invalid connection option|invalid .*value": "correct the part after ? in the URL",
}


def translate(error: psycopg2.Error, label: str, url: sqlalchemy.URL) -> PipelineError:
    """An error of an open connection, by its SQLSTATE."""
    text, code = f"{label}: {_without_password(text_of(error), url)}", error.pgcode or ""
    for pattern, remedy in _PARTICULAR.items():
        if re.search(pattern, text):
            return (WarehouseUnavailable if code.startswith(_TRANSIENT) else WarehouseError)(f"{text}; {remedy}")
    if code in _REMEDIES:
        return WarehouseError(f"{text}; {_REMEDIES[code]}")
    if not code or code.startswith(_TRANSIENT):  # a broken connection has no SQLSTATE
        return WarehouseUnavailable(f"{text}; nothing was changed by the unfinished transaction, run again")
    return WarehouseError(f"{text} (SQLSTATE {code or 'unknown'})")


def translate_refusal(error: psycopg2.Error, label: str, url: sqlalchemy.URL) -> PipelineError:
    """An error on the way to a connection. psycopg2 gives these no SQLSTATE, so the server's English has to do."""
    text = f"{label}: {_without_password(text_of(error), url)}"
    for pattern, remedy in _REFUSALS.items():
        if re.search(pattern, text):
            return WarehouseError(f"{text}; {remedy}")
    return WarehouseUnavailable(f"{text}; check that the server runs and may be reached")


def _without_password(text: str, url: sqlalchemy.URL) -> str:
    named = [str(value) for name, value in url.query.items() if "password" in name]
    for password in filter(None, (url.password, *named)):
        text = text.replace(str(password), "***")
    return text
