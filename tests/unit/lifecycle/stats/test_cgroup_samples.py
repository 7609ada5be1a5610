import pytest

from noderuntime.lifecycle.stats.cgroup_sample import CgroupReader, Pressure

V1 = {
    "cpuacct/kubepods/pod/c/cpuacct.usage": "123456789\n",
    "memory/kubepods/pod/c/memory.usage_in_bytes": "10000\n",
    "memory/kubepods/pod/c/memory.limit_in_bytes": "20000\n",
    "memory/kubepods/pod/c/memory.memsw.usage_in_bytes": "10500\n",
    "memory/kubepods/pod/c/memory.memsw.limit_in_bytes": "21000\n",
    "memory/kubepods/pod/c/memory.stat": (
        "cache 1\nrss 2\ntotal_inactive_file 3000\ntotal_rss 4000\ntotal_pgfault 7\ntotal_pgmajfault 1\n"
    ),
    "pids/kubepods/pod/c/pids.current": "5\n",
}
V2 = {
    "kubepods/pod/c/cpu.stat": "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n",
    "kubepods/pod/c/memory.current": "10000\n",
    "kubepods/pod/c/memory.max": "20000\n",
    "kubepods/pod/c/memory.swap.current": "500\n",
    "kubepods/pod/c/memory.swap.max": "1000\n",
    "kubepods/pod/c/memory.stat": "anon 4000\nfile 1\ninactive_file 3000\npgfault 7\npgmajfault 1\n",
    "kubepods/pod/c/pids.current": "5\n",
    "kubepods/pod/c/cpu.pressure": (
        "some avg10=1.50 avg60=0.10 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    ),
}


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(("version", "files", "cpu"), [(1, V1, 123456789), (2, V2, 1234000)])
def test_both_cgroup_versions_give_the_same_sample(tmp_path, version, files, cpu):
    write(tmp_path, files)
    sample = CgroupReader(version, tmp_path).read("/kubepods/pod/c")
    assert sample.timestamp > 1_600_000_000_000_000_000
    assert sample.cpu == cpu
    assert (sample.memory, sample.inactive_file, sample.rss) == (10000, 3000, 4000)
    assert (sample.page_faults, sample.major_page_faults) == (7, 1)
    assert (sample.memory_limit, sample.swap, sample.swap_limit) == (20000, 500, 1000)
    assert sample.processes == 5


def test_pressure_is_read_if_the_kernel_provides_it(tmp_path):
    write(tmp_path, V2)
    sample = CgroupReader(2, tmp_path).read("/kubepods/pod/c")
    assert sample.pressure["cpu"]["some"] == Pressure(1.5, 0.1, 0.0, 99)
    assert sample.pressure["io"] == {}


@pytest.mark.parametrize("version", [1, 2])
def test_a_missing_cgroup_is_none(tmp_path, version):
    assert CgroupReader(version, tmp_path).read("/kubepods/pod/c") is None


def test_no_limit_is_none(tmp_path):
    write(tmp_path, V1 | {"memory/kubepods/pod/c/memory.limit_in_bytes": "9223372036854771712\n"})
    assert CgroupReader(1, tmp_path).read("/kubepods/pod/c").memory_limit is None
    write(tmp_path, V2 | {"kubepods/pod/c/memory.max": "max\n"})
    assert CgroupReader(2, tmp_path).read("/kubepods/pod/c").memory_limit is None


def test_missing_counters_are_none(tmp_path):
    write(tmp_path, {"kubepods/pod/c/cpu.stat": "usage_usec 5\n"})
    sample = CgroupReader(2, tmp_path).read("/kubepods/pod/c")
    assert (sample.memory, sample.swap, sample.processes, sample.rss) == (None, None, None, None)
