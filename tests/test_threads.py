"""The number of threads follows the request, the environment, the cores and the cgroup."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from fixtures_machine import cgroup_v2, machine, put

from bitnet_cy import cores
from bitnet_cy.errors import OptionError
from bitnet_cy.threads import choose, cpu_quota

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="imitates Linux's /proc and /sys")


FOUR_CORES = [(0, 0), (0, 1), (0, 2), (0, 3)]


def picked(root: Path, **options: object) -> str:
    defaults: dict[str, object] = {"environ": {}, "allowed": set(range(8)), "root": root}
    return str(choose(**{**defaults, **options}))  # type: ignore[arg-type]


def test_hyper_threads_count_once(tmp_path: Path) -> None:
    machine(tmp_path, FOUR_CORES + FOUR_CORES)
    assert picked(tmp_path) == "4: physical cores"


def test_cores_of_two_sockets_with_equal_numbers_count_twice(tmp_path: Path) -> None:
    machine(tmp_path, [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert picked(tmp_path, allowed={0, 1, 2, 3}) == "4: physical cores"


def test_only_cores_in_the_affinity_mask_count(tmp_path: Path) -> None:
    machine(tmp_path, FOUR_CORES + FOUR_CORES)
    assert picked(tmp_path, allowed={1, 5, 6}) == "2: physical cores"


def test_slow_cores_beside_fast_ones_do_not_count(tmp_path: Path) -> None:
    machine(tmp_path, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 8), (0, 9), (0, 10), (0, 11)])
    put(tmp_path, "sys/devices/cpu_core/cpus", "0-3\n")
    assert picked(tmp_path) == "2: performance cores"
    assert picked(tmp_path, allowed={5, 6, 7}) == "3: physical cores"


def test_without_a_topology_logical_cpus_count(tmp_path: Path) -> None:
    assert picked(tmp_path, allowed={0, 1, 2}) == "3: logical CPUs (no core topology)"


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000", "2: cgroup quota of 2 CPUs"),
        ("250000 100000", "2: cgroup quota of 2.5 CPUs"),
        ("50000 100000", "1: cgroup quota of 0.5 CPUs"),
        ("400000 100000", "4: physical cores"),
        ("max 100000", "4: physical cores"),
        ("nonsense", "4: physical cores"),
    ],
)
def test_a_cgroup_v2_quota_is_rounded_down_to_at_least_one(
    tmp_path: Path, quota: str, expected: str
) -> None:
    machine(tmp_path, FOUR_CORES)
    cgroup_v2(tmp_path, "/", cpu_max=quota)
    assert picked(tmp_path, allowed={0, 1, 2, 3}) == expected


def test_a_quota_of_an_outer_group_binds_too(tmp_path: Path) -> None:
    cgroup_v2(
        tmp_path,
        "/outer/inner",
        outer__inner__cpu_max="800000 100000",
        outer__cpu_max="300000 100000",
    )
    assert cpu_quota(tmp_path) == 3.0


@pytest.mark.parametrize(
    ("mounted", "folder"),
    [("/", "sys/fs/cgroup/cpu,cpuacct/docker/abc"), ("/docker/abc", "sys/fs/cgroup/cpu,cpuacct")],
)
def test_a_cgroup_v1_quota_is_found_from_outside_and_inside_a_container(
    tmp_path: Path, mounted: str, folder: str
) -> None:
    put(tmp_path, "proc/self/cgroup", "9:name=systemd:/\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    put(
        tmp_path,
        "proc/self/mountinfo",
        f"33 31 0:30 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
    )
    put(tmp_path, f"{folder}/cpu.cfs_quota_us", "150000\n")
    put(tmp_path, f"{folder}/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path) == 1.5
    put(tmp_path, f"{folder}/cpu.cfs_quota_us", "-1\n")
    assert cpu_quota(tmp_path) is None


def test_the_environment_beats_the_machine_and_the_argument_beats_both(tmp_path: Path) -> None:
    machine(tmp_path, FOUR_CORES)
    assert picked(tmp_path, environ={"OMP_NUM_THREADS": "3"}) == "3: OMP_NUM_THREADS"
    assert picked(tmp_path, environ={"OMP_NUM_THREADS": "6,2"}) == "6: OMP_NUM_THREADS"
    assert picked(tmp_path, environ={"OMP_NUM_THREADS": ""}, allowed={0, 1}) == (
        "2: physical cores"
    )
    assert picked(tmp_path, environ={"OMP_NUM_THREADS": "3"}, threads=5) == "5: as asked"


@pytest.mark.parametrize("threads", [0, -1, 1025, True, 2.0, "2"])
def test_a_number_that_is_none_is_an_error(threads: object) -> None:
    with pytest.raises(OptionError, match=r"threads is .*from 1 to 1024"):
        choose(threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0", "-2", "many", "1.5", "99999"])
def test_a_wrong_environment_variable_is_an_error_naming_it(text: str) -> None:
    with pytest.raises(OptionError, match="OMP_NUM_THREADS"):
        choose(environ={"OMP_NUM_THREADS": text})


def test_without_openmp_there_is_one_thread() -> None:
    assert str(choose(4, openmp=False)) == "1: built without OpenMP"
    with pytest.raises(OptionError):
        choose(0, openmp=False)


def test_this_machine_gives_at_least_one() -> None:
    assert choose().count >= 1


def test_windows_records_are_counted_and_slow_cores_left_out() -> None:
    def core(efficiency: int) -> bytes:
        return struct.pack("<IIBB", 0, 48, 0, efficiency) + bytes(38)

    assert cores.count_windows_records(core(0) * 4) == (4, "physical cores")
    assert cores.count_windows_records(core(1) * 2 + core(0) * 8) == (2, "performance cores")
    assert cores.count_windows_records(b"") == (1, "physical cores")


def test_cpu_lists_are_read_as_the_kernel_writes_them() -> None:
    assert cores.parse_cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert cores.parse_cpu_list("") == set()
    assert cores.parse_cpu_list("x-3") == set()
