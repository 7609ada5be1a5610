"""Metrics of pods: the same meaning on both cgroup versions, in the reader's label order."""

import os
import socket

import pytest

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.stats.layers import Measured
from noderuntime.lifecycle.stats.metrics import cgroup_values as cgroup
from noderuntime.lifecycle.stats.metrics.container import Target, observe, recorded, share_values
from noderuntime.lifecycle.stats.metrics.interface_values import interfaces
from noderuntime.lifecycle.stats.metrics.process_values import limits, open_files
from noderuntime.lifecycle.stats.metrics.table import METRICS
from noderuntime.lifecycle.stats.metrics.values import Value, descriptors, metrics

V1 = {
    "cpuacct/p/c/cpuacct.usage": "3500000000\n",
    "cpuacct/p/c/cpuacct.usage_user": "2100000000\n",
    "cpuacct/p/c/cpuacct.usage_sys": "1400000000\n",
    "cpu/p/c/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 5000000000\n",
    "memory/p/c/memory.usage_in_bytes": "10000\n",
    "memory/p/c/memory.max_usage_in_bytes": "12000\n",
    "memory/p/c/memory.kmem.usage_in_bytes": "77\n",
    "memory/p/c/memory.failcnt": "0\n",
    "memory/p/c/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory/p/c/memory.stat": (
        "rss 1\ncache 1\ntotal_rss 4000\ntotal_cache 900\ntotal_mapped_file 80\ntotal_swap 500\n"
        "total_active_file 600\ntotal_inactive_file 3000\ntotal_pgfault 7\ntotal_pgmajfault 1\n"
    ),
    "pids/p/c/pids.current": "5\n",
    "pids/p/c/pids.max": "max\n",
    "pids/p/c/cgroup.procs": "11\n12\n",
    "blkio/p/c/blkio.throttle.io_service_bytes_recursive": (
        "999:7 Read 4096\n999:7 Write 8192\n999:7 Total 12288\nTotal 12288\n"
    ),
    "blkio/p/c/blkio.throttle.io_serviced_recursive": "999:7 Read 1\n999:7 Write 2\n",
}
V2 = {
    "p/c/cpu.stat": (
        "usage_usec 3500000\nuser_usec 2100000\nsystem_usec 1400000\n"
        "nr_periods 10\nnr_throttled 4\nthrottled_usec 5000000\n"
    ),
    "p/c/memory.current": "10000\n",
    "p/c/memory.peak": "12000\n",
    "p/c/memory.swap.current": "500\n",
    "p/c/memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n",
    "p/c/memory.stat": (
        "anon 4000\nfile 900\nkernel 77\nfile_mapped 80\nactive_file 600\ninactive_file 3000\n"
        "pgfault 7\npgmajfault 1\n"
    ),
    "p/c/pids.current": "5\n",
    "p/c/pids.max": "max\n",
    "p/c/cgroup.procs": "11\n12\n",
    "p/c/io.stat": "999:7 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n999:8 \n",
    "p/c/io.pressure": (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=3000000\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n"
    ),
}


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def by_name(values):
    return {(one.name, *sorted(one.labels.values())): one.number for one in values}


@pytest.mark.parametrize(("version", "files"), [(1, V1), (2, V2)])
def test_both_cgroup_versions_give_the_same_values(tmp_path, version, files):
    write(tmp_path, files)
    reported = by_name(cgroup.read(version, "p/c", tmp_path))
    assert (
        reported.items()
        >= {
            ("cpu_usage_seconds_total",): 3,
            ("cpu_user_seconds_total",): 2,
            ("cpu_system_seconds_total",): 1,
            ("cpu_cfs_periods_total",): 10,
            ("cpu_cfs_throttled_periods_total",): 4,
            ("cpu_cfs_throttled_seconds_total",): 5,
            ("memory_usage_bytes",): 10000,
            ("memory_max_usage_bytes",): 12000,
            ("memory_working_set_bytes",): 7000,
            ("memory_rss",): 4000,
            ("memory_cache",): 900,
            ("memory_mapped_file",): 80,
            ("memory_kernel_usage",): 77,
            ("memory_swap",): 500,
            ("memory_failcnt",): 0,
            ("memory_total_active_file_bytes",): 600,
            ("memory_total_inactive_file_bytes",): 3000,
            ("memory_failures_total", "container", "pgfault"): 7,
            ("memory_failures_total", "container", "pgmajfault"): 1,
            ("oom_events_total",): 2,
            ("processes",): 2,
            ("threads",): 5,
            ("threads_max",): 0,
            ("fs_reads_total", "999:7"): 1,
            ("fs_writes_total", "999:7"): 2,
            ("fs_reads_bytes_total", "999:7"): 4096,
            ("fs_writes_bytes_total", "999:7"): 8192,
            ("blkio_device_usage_total", "7", "999", "999:7", "Read"): 4096,
            ("blkio_device_usage_total", "7", "999", "999:7", "Write"): 8192,
        }.items()
    )
    pressure = {key: one for key, one in reported.items() if "pressure" in key[0]}
    expected = {("pressure_io_waiting_seconds_total",): 3, ("pressure_io_stalled_seconds_total",): 1}
    assert pressure == (expected if version == 2 else {})


def test_a_missing_cgroup_has_no_values(tmp_path):
    assert cgroup.read(1, "p/c", tmp_path) == cgroup.read(2, "p/c", tmp_path) == []


def test_every_value_is_described_with_its_labels(tmp_path):
    write(tmp_path, V1)
    write(tmp_path / "v2", V2)
    container = Container(
        id="c", sandbox_id="s", config=api_pb2.ContainerConfig(), created_at=1, started_at=5
    )
    container.resources.cpu_shares = 7
    values = [
        *cgroup.read(1, "p/c", tmp_path),
        *cgroup.read(2, "p/c", tmp_path / "v2"),
        *observe(1, Target(container, tmp_path, None)),
        *recorded(container, Measured(1, "/", 2, 3)),
        *limits(os.getpid()),
        *interfaces(b" eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n   lo: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"),
    ]
    for value in values:
        assert set(value.labels) == set(METRICS[f"container_{value.name}"].extra), value
    assert {("spec_cpu_shares",): 7, ("fs_usage_bytes", "/"): 2}.items() <= by_name(values).items()
    assert by_name(values)[("network_transmit_errors_total", "eth0")] == 7
    assert not any("lo" in one.labels.values() for one in values)
    assert ("spec_memory_limit_bytes",) not in by_name(values), "an unlimited value is omitted"


def test_open_files_and_sockets_of_processes():
    with socket.socket(), open(os.devnull):
        before = by_name(open_files([os.getpid()]))
    after = by_name(open_files([os.getpid(), 2**22 + 1]))
    assert before[("file_descriptors",)] - after[("file_descriptors",)] == 2
    assert before[("sockets",)] - after[("sockets",)] == 1


def test_share_values_are_those_of_the_statistics():
    stats = api_pb2.ContainerStats()
    stats.cpu.usage_core_nano_seconds.value = 2_900_000_000
    stats.memory.working_set_bytes.value = 10
    assert list(share_values(stats)) == [
        Value("cpu_usage_seconds_total", 2),
        Value("memory_working_set_bytes", 10),
    ]


def test_labels_are_in_the_order_of_the_descriptor():
    base = {"pod": "p", "namespace": "n", "container": "c", "id": "i", "image": "im"}
    values = [Value("cpu_usage_seconds_total", 3), Value("fs_reads_total", 4, {"device": "/dev/x"})]
    ours = metrics(values, base, 5, {})
    assert [list(one.label_values) for one in ours] == [
        ["p", "n", "c", "i", "im"],
        ["p", "n", "c", "i", "im", "/dev/x"],
    ]
    assert (ours[0].name, ours[0].value.value, ours[0].timestamp) == (
        "container_cpu_usage_seconds_total",
        3,
        5,
    )
    assert ours[0].metric_type == api_pb2.COUNTER
    theirs = {"container_cpu_usage_seconds_total": ["id", "image", "namespace", "pod", "container", "cpu"]}
    (first, second) = metrics(values, base, 5, theirs)
    assert list(first.label_values) == ["i", "im", "n", "p", "c", "total"]
    assert list(second.label_values)[-1] == "/dev/x"


def test_descriptors_have_help_and_labels():
    reported = descriptors()
    assert len({one.name for one in reported}) == len(reported) > 50
    for one in reported:
        assert one.name.startswith("container_")
        assert one.help.endswith(".")
        assert list(one.label_keys[:5]) == ["pod", "namespace", "container", "id", "image"]
