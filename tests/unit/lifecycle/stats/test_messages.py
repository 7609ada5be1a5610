from noderuntime.lifecycle.stats import messages
from noderuntime.lifecycle.stats.cgroup_sample import Pressure, Sample
from noderuntime.lifecycle.stats.rates import Rates

SECOND = 1_000_000_000


def test_the_working_set_is_usage_without_inactive_page_cache():
    sample = Sample(timestamp=1, memory=10000, inactive_file=3000, memory_limit=20000, rss=4000)
    usage = messages.memory(sample)
    assert usage.working_set_bytes.value == 7000
    assert usage.available_bytes.value == 13000
    assert usage.usage_bytes.value == 10000
    assert not usage.HasField("page_faults")
    assert messages.memory(Sample(timestamp=1, memory=10, inactive_file=30)).working_set_bytes.value == 0


def test_available_memory_is_zero_without_a_limit():
    assert messages.memory(Sample(timestamp=1, memory=10)).available_bytes.value == 0


def test_unknown_numbers_are_left_unset():
    sample = Sample(timestamp=1)
    assert messages.swap(sample) is None
    assert messages.io(sample) is None
    assert not messages.cpu(sample, None).HasField("usage_core_nano_seconds")
    assert not messages.cpu(sample, None).HasField("usage_nano_cores")
    assert not messages.cpu(sample, None).HasField("psi")


def test_pressure_is_converted():
    pressure = {"io": {"some": Pressure(1, 2, 3, 4), "full": Pressure(5, 6, 7, 8)}}
    usage = messages.io(Sample(timestamp=1, pressure=pressure))
    assert (usage.psi.Some.Avg10, usage.psi.Full.Total) == (1, 8)


def test_interfaces_exclude_lo_and_separate_the_default():
    table = b"""Inter-|   Receive                          |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier
    lo:  100  1 0 0 0 0 0 0  100  1 0 0 0 0 0 0
  eth0: 5000 10 1 0 0 0 0 0 6000 12 2 0 0 0 0 0
  net1:   70  1 0 0 0 0 0 0   80  1 0 0 0 0 0 0
"""
    usage = messages.network(9, table)
    eth0 = usage.default_interface
    assert (eth0.name, eth0.rx_bytes.value, eth0.rx_errors.value) == ("eth0", 5000, 1)
    assert (eth0.tx_bytes.value, eth0.tx_errors.value) == (6000, 2)
    assert [(one.name, one.tx_bytes.value) for one in usage.interfaces] == [("net1", 80)]
    assert not messages.network(9, b"").HasField("default_interface")


def test_a_rate_needs_two_samples_a_second_apart():
    rates = Rates()
    assert rates.update("a", 10 * SECOND, 0) is None
    assert rates.update("a", 10 * SECOND + 1000, 5) is None
    assert rates.update("a", 12 * SECOND, SECOND) == SECOND // 2
    assert rates.update("a", 12 * SECOND + 1000, 2 * SECOND) == SECOND // 2, "too soon: the last rate again"
    assert rates.update("b", 12 * SECOND, 7) is None


def test_a_decreased_counter_restarts_the_rate():
    rates = Rates()
    rates.update("a", 10 * SECOND, 100)
    assert rates.update("a", 20 * SECOND, 50) is None


def test_rates_of_missing_cgroups_are_dropped():
    rates = Rates()
    rates.update("a", 1000 * SECOND, 100)
    rates.update("b", 2000 * SECOND, 100)
    assert rates.update("a", 2001 * SECOND, 200) is None
