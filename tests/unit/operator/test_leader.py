"""The election: one leader at a time, also when it cannot renew."""

from __future__ import annotations

import asyncio

import pytest
from fakeapi import FakeApi

from noderuntime_operator.kube import Kube, NotLeader
from noderuntime_operator.leader import LEASE_NAME, LEASE_SECONDS, RENEW_SECONDS, Election
from noderuntime_operator.metrics import Metrics

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def first(kube: Kube, clock: Clock) -> Election:
    return Election(kube, "one/pod_1", Metrics(), clock)


@pytest.fixture
def second(kube: Kube, clock: Clock) -> Election:
    return Election(kube, "two/pod_2", Metrics(), clock)


async def test_only_the_first_operator_leads(first: Election, second: Election) -> None:
    await first.attempt()
    await second.attempt()
    assert (first.leads, second.leads) == (True, False)
    assert str(second) == "another operator (one/pod_1) leads"


async def test_dead_leaders_lease_is_taken_when_it_ends(
    first: Election, second: Election, clock: Clock
) -> None:
    await first.attempt()
    await second.attempt()
    clock.now += LEASE_SECONDS - 1
    await second.attempt()
    assert not second.leads
    clock.now += 1
    await second.attempt()
    assert second.leads


async def test_leader_that_cannot_renew_stops_before_the_lease_ends(
    api: FakeApi, kube: Kube, first: Election, clock: Clock
) -> None:
    await first.attempt()
    kube.seconds_to_write = first.seconds_to_write
    clock.now += RENEW_SECONDS - 1
    assert 0 < first.seconds_to_write() < LEASE_SECONDS - RENEW_SECONDS + 1
    await kube.patch("Node", "n", {})
    clock.now += 1
    assert not first.leads
    with pytest.raises(NotLeader):
        await kube.patch("Node", "n", {})
    assert api.count("PATCH", "/nodes/n") == 1


async def test_renewal_counts_from_before_its_request(api: FakeApi, first: Election, clock: Clock) -> None:
    await first.attempt()
    before = clock.now
    api.on_request = lambda: setattr(clock, "now", clock.now + 2)
    await first.attempt()
    assert first.seconds_to_write() == LEASE_SECONDS - 1 - (clock.now - before - 2)


async def test_released_lease_is_taken_at_once(first: Election, second: Election, api: FakeApi) -> None:
    await first.attempt()
    await first.release()
    assert not first.leads
    await second.attempt()
    assert second.leads
    assert api.objects[LEASES][LEASE_NAME]["spec"]["leaseTransitions"] == 2


async def test_lease_taken_by_a_faster_operator_is_not_taken(
    api: FakeApi, first: Election, second: Election, clock: Clock
) -> None:
    await first.attempt()
    await second.attempt()
    clock.now += LEASE_SECONDS
    # Between the second's read and its write, the first renews.
    api.refusals["PUT", f"{LEASES}/{LEASE_NAME}"] = [409]
    await second.attempt()
    assert not second.leads


async def test_lost_leader_follows_who_took_the_lease(
    first: Election, second: Election, clock: Clock
) -> None:
    await first.attempt()
    await second.attempt()
    clock.now += LEASE_SECONDS
    await second.attempt()
    await first.attempt()
    assert str(first) == "another operator (two/pod_2) leads"
    assert first.seconds_to_write() == 0


async def test_election_survives_an_api_server_that_refuses(api: FakeApi, first: Election) -> None:
    api.refusals["POST", LEASES] = [500]
    task = asyncio.create_task(first.run())
    while not first.leads:
        await asyncio.sleep(0.05)
    task.cancel()
