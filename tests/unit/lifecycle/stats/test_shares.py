from noderuntime.lifecycle.stats.cgroup_sample import Sample
from noderuntime.lifecycle.stats.shares import Shares


def sample_of(cpu, at=1, **numbers):
    return Sample(timestamp=at, cpu=cpu, **numbers)


def cpus(parts):
    return {one: sample.cpu for one, sample in parts.items()}


def test_a_single_container_gets_the_whole_sample():
    sample = sample_of(10, memory=100, page_faults=5, memory_limit=200)
    assert Shares().divide("s", sample, ["a"]) == {"a": sample}


def test_several_containers_get_equal_parts():
    parts = Shares().divide(
        "s", sample_of(10, memory=100, rss=50, page_faults=5, memory_limit=200), ["a", "b"]
    )
    assert cpus(parts) == {"a": 5, "b": 5}
    assert {(one.memory, one.rss, one.page_faults, one.memory_limit) for one in parts.values()} == {
        (50, 25, None, None)
    }


def test_cpu_time_is_divided_as_it_is_used():
    shares = Shares()
    assert cpus(shares.divide("s", sample_of(100), ["a"])) == {"a": 100}
    assert cpus(shares.divide("s", sample_of(120), ["a", "b"])) == {"a": 110, "b": 10}, "no counter decreases"
    assert cpus(shares.divide("s", sample_of(150), ["b"])) == {"b": 40}
    assert cpus(shares.divide("s", sample_of(150), ["b", "a"])) == {"b": 40, "a": 0}, (
        "a restarted one starts at zero"
    )
    assert cpus(shares.divide("other", sample_of(7), ["c"])) == {"c": 7}


def test_no_running_container_gets_no_part():
    assert Shares().divide("s", sample_of(10), []) == {}


def test_a_sandbox_is_dropped_after_ten_minutes():
    shares = Shares()
    shares.divide("s", sample_of(100, at=1), ["a", "b"])
    shares.divide("t", sample_of(1, at=700_000_000_000), ["c"])
    assert cpus(shares.divide("s", sample_of(100, at=700_000_000_001), ["a"])) == {"a": 100}
