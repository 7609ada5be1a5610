from noderuntime.lifecycle.stats.cgroup_sample import Sample
from noderuntime.lifecycle.stats.shares import Shares


def look(cpu, at=1, **numbers):
    return Sample(timestamp=at, cpu=cpu, **numbers)


def cpus(parts):
    return {one: sample.cpu for one, sample in parts.items()}


def test_a_single_container_has_all_of_it():
    sample = look(10, memory=100, page_faults=5, memory_limit=200)
    assert Shares().deal("s", sample, ["a"]) == {"a": sample}


def test_several_have_equal_parts_and_nothing_that_cannot_be_divided():
    parts = Shares().deal("s", look(10, memory=100, rss=50, page_faults=5, memory_limit=200), ["a", "b"])
    assert cpus(parts) == {"a": 5, "b": 5}
    assert {(one.memory, one.rss, one.page_faults, one.memory_limit) for one in parts.values()} == {
        (50, 25, None, None)
    }


def test_cpu_time_is_dealt_out_as_it_is_used():
    shares = Shares()
    assert cpus(shares.deal("s", look(100), ["a"])) == {"a": 100}
    assert cpus(shares.deal("s", look(120), ["a", "b"])) == {"a": 110, "b": 10}, "no counter goes back"
    assert cpus(shares.deal("s", look(150), ["b"])) == {"b": 40}
    assert cpus(shares.deal("s", look(150), ["b", "a"])) == {"b": 40, "a": 0}, "a restarted one starts anew"
    assert cpus(shares.deal("other", look(7), ["c"])) == {"c": 7}


def test_nothing_runs_nothing_is_dealt():
    assert Shares().deal("s", look(10), []) == {}


def test_a_sandbox_nobody_asked_for_in_ten_minutes_is_forgotten():
    shares = Shares()
    shares.deal("s", look(100, at=1), ["a", "b"])
    shares.deal("t", look(1, at=700_000_000_000), ["c"])
    assert cpus(shares.deal("s", look(100, at=700_000_000_001), ["a"])) == {"a": 100}
