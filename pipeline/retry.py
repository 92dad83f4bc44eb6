"""The retry policy: how long servers are waited for, and how often a call that may succeed later is repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from . import remote, waiting
from .errors import TransientError

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """How long to wait and how often to try. Times in seconds.

    ``timeout`` is the time for one question, redirects included, and the longest silence within a body. A body that
    brings fewer than ``min_rate`` bytes per second over such a time is broken off; 0 allows any. Between two tries lies
    a random time up to ``backoff`` doubled with each try (full jitter), after the time that the other side asked for;
    both together at most ``max_backoff``. All questions that share ``spent`` may wait in vain for ``patience`` seconds
    together; then they fail at once.
    """

    timeout: float = 60
    attempts: int = 5
    backoff: float = 2
    max_backoff: float = 120
    patience: float = float("inf")
    min_rate: float = 1000
    spent: remote.Spent = field(default_factory=remote.Spent, compare=False)

    def left(self) -> float:
        """Seconds of the patience that are left."""
        return max(0.0, self.patience - self.spent.seconds)


def retrying(
    function: Callable[[], T],
    policy: Policy,
    *,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], bool] = waiting.say,
) -> T:
    """What ``function`` returns, called again while it raises a ``TransientError`` and ``policy`` has patience left.

    The first long wait between two tries is said.
    """
    import tenacity

    jitter = tenacity.wait_random_exponential(multiplier=policy.backoff, max=policy.max_backoff)
    has_said = False

    def asked_for(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return (error.retry_after or 0.0) if isinstance(error, TransientError) else 0.0

    def tell(state: tenacity.RetryCallState) -> None:
        nonlocal has_said
        if state.upcoming_sleep >= waiting.SAID_AFTER and not has_said and state.outcome:
            has_said = say(f"waits {state.upcoming_sleep:.0f} s before it tries again: {state.outcome.exception()}")

    is_enough = tenacity.stop_any(
        tenacity.stop_after_attempt(policy.attempts), tenacity.stop_before_delay(policy.patience)
    )

    def rest(seconds: float) -> None:
        begun = time.monotonic()
        sleep(seconds)
        policy.spent.add(begun, time.monotonic())

    retry: tenacity.Retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, TransientError) and error.at_once),
        stop=lambda state: is_enough(state) or state.upcoming_sleep >= policy.left(),
        wait=lambda state: min(asked_for(state) + jitter(state), policy.max_backoff),
        before_sleep=tell,
        sleep=rest,
        reraise=True,
    )
    try:
        return retry(function)
    finally:
        if has_said:
            say("")
