"""The retry policy: which errors are tried again, and how long is waited before and in all."""

from __future__ import annotations

import pytest

from pipeline import retry
from pipeline.errors import PublisherUnavailable, RefusedByPublisher, TransientError
from pipeline.retry import RACES, REQUESTS, Policy, retrying
from tests.patience import Clock


class Flaky:
    """Raises the given errors in turn, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.slept: list[float] = []

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def run(self, policy: Policy) -> str:
        return retrying(self, policy, sleep=self.slept.append)


def test_transient_errors_are_tried_again_with_growing_random_waits() -> None:
    flaky = Flaky(*[PublisherUnavailable("x")] * 4)
    assert flaky.run(Policy(attempts=5, backoff=2, max_backoff=6)) == "done"
    assert len(flaky.slept) == 4
    assert all(0 <= wait <= limit for wait, limit in zip(flaky.slept, [2, 4, 6, 6], strict=True))
    assert len(set(flaky.slept)) > 1


def test_the_last_error_comes_through() -> None:
    flaky = Flaky(PublisherUnavailable("first"), PublisherUnavailable("second"), PublisherUnavailable("third"))
    with pytest.raises(PublisherUnavailable, match="second"):
        flaky.run(Policy(attempts=2))


def test_terminal_errors_are_not_tried_again() -> None:
    flaky = Flaky(RefusedByPublisher("no"))
    with pytest.raises(RefusedByPublisher):
        flaky.run(Policy())
    assert flaky.slept == []


def test_retry_after_is_the_least_wait() -> None:
    flaky = Flaky(TransientError("later", retry_after=30))
    flaky.run(Policy(backoff=1))
    assert 30 <= flaky.slept[0] <= 31


def test_no_wait_is_longer_than_the_setting_whatever_the_server_asks_for() -> None:
    flaky = Flaky(TransientError("tomorrow", retry_after=86_400))
    assert flaky.run(Policy(max_backoff=50)) == "done"
    assert flaky.slept == [50]


def test_patience_ends_before_a_wait_that_is_longer_than_it() -> None:
    flaky = Flaky(TransientError("tomorrow", retry_after=86_400))
    with pytest.raises(TransientError, match="tomorrow"):
        flaky.run(Policy(max_backoff=50, patience=40))
    assert flaky.slept == []


def test_questions_that_share_their_waits_share_the_patience() -> None:
    policy = Policy(max_backoff=50, patience=70)
    policy.spent.add(0, 30)
    flaky = Flaky(TransientError("tomorrow", retry_after=86_400))
    with pytest.raises(TransientError, match="tomorrow"):
        flaky.run(policy)
    assert flaky.slept == []
    policy.spent.add(20, 75)  # the first ten seconds of it were counted before
    assert policy.left() == 0


def test_the_rest_between_two_tries_counts_against_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, policy = Clock(), Policy(backoff=0, max_backoff=50, patience=100)
    monkeypatch.setattr(retry, "time", clock)
    retrying(Flaky(TransientError("later", retry_after=30)), policy, sleep=clock.sleep)
    assert policy.left() == 70


def test_requests_to_clouds_are_limited_by_time_and_heed_what_the_service_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    flaky = Flaky(*[TransientError("busy", retry_after=40.0)] * 3)
    assert retrying(flaky, REQUESTS.within(300)) == "done"
    assert all(40 <= wait <= 42 for wait in clock.slept), "longer than max_backoff"
    assert REQUESTS.spent.seconds == 0, "each call has a patience of its own"


def test_pauses_grow_and_end_with_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    for failures in range(12):
        retry.pause(RACES, failures)
        assert clock.slept[-1] <= min(0.02 * 2**failures, 2)
    retry.pause(Policy(patience=0.1), 5)
    assert clock.slept[-1] <= 0.1
