"""Every error that the pipeline raises on purpose, as one tree.

Two branches decide what happens next, and only the class is asked, never the text:

* ``TransientError``: the same call may succeed later (a throttled publisher, a busy database). It is
  retried with growing delay.
* ``TerminalError``: the same call fails the same way again until somebody changes something. It is not
  repeated within a run.

The text of each is one line that names the setting, file or row and says what to do.
"""

from __future__ import annotations

from .sanitize import one_line


class PipelineError(Exception):
    """Base of all errors whose text is meant for the user: one line, shown without a traceback.

    ``is_repeated`` if this run has said so before.
    """

    def __init__(self, message: str = "", *, is_repeated: bool = False) -> None:
        super().__init__(message)
        self.is_repeated = is_repeated

    def __str__(self) -> str:
        return one_line(super().__str__())


def text_after(title: str, error: BaseException) -> str:
    """The text of an error, to stand behind ``title: ``. The name that the title ends with is not said twice."""
    name, colon, rest = str(error).partition(": ")
    return rest if colon and is_said(name, title) else str(error)


def is_said(name: str, title: str) -> bool:
    """Whether a title ends with the name. A warehouse that is a file stands there as its path below this folder."""
    return title.endswith(name) or name.endswith(f"/{title.rpartition(' into ')[2]}")


class TransientError(PipelineError):
    """Worth another try. ``retry_after`` is the wait in seconds the other side asked for, if it did."""

    #: Whether the stage itself may try again. Otherwise the scheduler does, some seconds later.
    at_once = True
    #: Whether this run has tried often enough.
    is_for_good = False

    def __init__(self, message: str, retry_after: float | None = None, *, is_repeated: bool = False) -> None:
        super().__init__(message, is_repeated=is_repeated)
        self.retry_after = retry_after


class TerminalError(PipelineError):
    """Not worth another try until something is changed."""


class UsageError(TerminalError, ValueError):
    """A flag, setting, environment variable or argument that cannot be right."""


class Unreachable(TerminalError):
    """A server that every month needs does not answer: it was waited for as long as a run does."""


# -- publishers ----------------------------------------------------------------------------------


class NeverOffered(UsageError):
    """A month before the dataset began, or after the publisher stopped: refused before anything runs."""


class MissingAtPublisher(TerminalError):
    """A gap: the publisher has later months but not this one."""


class RefusedByPublisher(TerminalError):
    """The publisher answers, and will not give the file (401, 404 of the whole address, 410 ...)."""


class PublisherUnavailable(TransientError):
    """Connection lost, time-out or a 5xx answer."""


class NoAnswer(PublisherUnavailable):
    """No connection, or nothing was heard on it within the time-out."""


class Throttled(PublisherUnavailable):
    """The publisher asks for fewer requests (429, 503, or a 403 for a file that must exist)."""


class TruncatedFile(TransientError):
    """Fewer bytes than announced, a cut gzip stream, a Parquet file without its footer."""


class DamagedFile(TerminalError):
    """The publisher's file is not what it should be. What was fetched is not kept: the next run asks for it anew."""


class WrongFormat(DamagedFile):
    """The bytes are not what the address promises, such as an error page saved as data."""


# -- cleaning ------------------------------------------------------------------------------------


class UnreadableFile(DamagedFile):
    """The file as a whole cannot be mapped to the dataset (columns that matter are not there)."""


class TooManyUnreadable(DamagedFile):
    """More rows than ``[clean] max_unreadable`` allows could not be read."""


# -- lake and warehouse --------------------------------------------------------------------------


class LakeError(TerminalError):
    """The lake or workspace refuses what was asked of it (permissions, missing bucket, full disk)."""


class MissingBucket(LakeError):
    """The bucket as a whole is not there."""


class StorageUnavailable(TransientError):
    """The lake did not answer, or lost the race against another writer."""


class TakenAway(StorageUnavailable):
    """What an earlier stage had made is gone or replaced: by another run, or by ``forget``. That stage is run again.

    ``may_return``: another run may be about to put it there, so the stage that needs it looks again first.
    """

    def __init__(self, message: str, may_return: bool) -> None:
        super().__init__(message)
        self.at_once = may_return


class ConflictError(StorageUnavailable):
    """Someone else wrote the object since it was read; what was to be written is not written."""


class DamagedScratch(LakeError):
    """A file in the workspace is not what a stage wrote there. It is removed, and the next run makes it again."""


class DamagedLakeFile(TerminalError):
    """A file in the lake is not the one of its manifest. A load that finds it makes the month incomplete."""


class WarehouseError(TerminalError):
    """The warehouse refuses what was asked of it (types, permissions, place)."""


class WarehouseUnavailable(TransientError):
    """The warehouse did not answer, or the connection broke."""


class WarehouseBusy(WarehouseUnavailable):
    """Someone else holds the warehouse for longer than we are willing to wait: what could be waited is waited."""

    at_once = False


class SyntheticData(TerminalError):
    """Synthetic months would be mixed with published ones."""
