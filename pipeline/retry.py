"""The one retry policy: which errors are tried again, how often, and after which pause. One try: see ``remote``."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from . import remote, waiting
from .errors import TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """How long to wait and how often to try. Times in seconds.

    ``timeout`` is the time for one question, redirects included, and the longest silence within a body. A body that
    brings fewer than ``min_rate`` bytes per second over such a time is broken off; 0 allows any. Between two tries lies
    a random time up to ``backoff`` doubled with each try (full jitter), at most ``max_backoff``, after the time that
    the other side asked for; both together at most ``max_wait``, which is ``max_backoff`` unless it is given. All
    questions that share ``spent`` may wait in vain for ``patience`` seconds together; then they fail at once.
    """

    timeout: float = 60
    attempts: int = 5
    backoff: float = 2
    max_backoff: float = 120
    max_wait: float | None = None
    patience: float = float("inf")
    min_rate: float = 1000
    spent: remote.Spent = field(default_factory=remote.Spent, compare=False)

    def within(self, seconds: float) -> Policy:
        """The same for one more call that may take so many seconds with all its tries."""
        return replace(self, patience=seconds, spent=remote.Spent())

    def left(self) -> float:
        """Seconds of the patience that are left."""
        return max(0.0, self.patience - self.spent.seconds)


#: Of a question for which nothing else is said; it has all the time of its tries.
DEFAULT = Policy()

#: Of one request to a cloud service: not the tries are limited but their time, by ``patience``.
REQUESTS = Policy(attempts=sys.maxsize, backoff=0.5, max_backoff=30.0, max_wait=float("inf"))

#: Of a write that lost against another writer's.
RACES = Policy(backoff=0.02, max_backoff=2.0)


def pause(policy: Policy, failures: int) -> None:
    """Wait before the next try after so many failures, where a loop of its own repeats the call."""
    time.sleep(random.uniform(0, min(policy.backoff * 2**failures, policy.max_backoff, policy.patience)))


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed at once: the class tells, never the text."""
    return isinstance(error, TransientError) and error.at_once


def asked_for(error: BaseException | None) -> float | None:
    """Seconds that the other side asks to wait."""
    return error.retry_after if isinstance(error, TransientError) else None


def long_wait(error: BaseException | None, seconds: float, since: float) -> str:
    """What is said of a wait of ``seconds``, ``since`` seconds after the first try; empty for a short one."""
    return f"waits {seconds:.0f} s before it tries again: {error}" if seconds >= waiting.SAID_AFTER else ""


def retrying(
    function: Callable[[], T],
    policy: Policy,
    *,
    is_transient: Callable[[BaseException], bool] = is_transient,
    asked_for: Callable[[BaseException | None], float | None] = asked_for,
    words: Callable[[BaseException | None, float, float], str] = long_wait,
    sleep: Callable[[float], None] | None = None,
    say: Callable[[str], bool] = waiting.say,
) -> T:
    """What ``function`` returns, called again while its error ``is_transient`` and ``policy`` has patience left.

    The first wait for which there are ``words`` is said.
    """
    import tenacity

    jitter = tenacity.wait_random_exponential(multiplier=policy.backoff, max=policy.max_backoff)
    longest = policy.max_backoff if policy.max_wait is None else policy.max_wait
    has_said = False

    def error_of(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome else None

    def tell(state: tenacity.RetryCallState) -> None:
        nonlocal has_said
        text = words(error_of(state), state.upcoming_sleep, state.seconds_since_start or 0.0)
        has_said = has_said or (bool(text) and say(text))

    is_enough = tenacity.stop_any(
        tenacity.stop_after_attempt(policy.attempts), tenacity.stop_before_delay(policy.patience)
    )

    def rest(seconds: float) -> None:
        begun = time.monotonic()
        (sleep or time.sleep)(seconds)
        policy.spent.add(begun, time.monotonic())

    retry: tenacity.Retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=lambda state: is_enough(state) or state.upcoming_sleep >= policy.left(),
        wait=lambda state: min((asked_for(error_of(state)) or 0.0) + jitter(state), longest),
        before_sleep=tell,
        sleep=rest,
        reraise=True,
    )
    try:
        return retry(function)
    finally:
        if has_said:
            say("")
