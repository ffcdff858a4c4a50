"""What control groups leave of a machine: trees of both versions, as files."""

import os

import pytest

from camelsight.pipeline import cli, machine

V2 = "30 1 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw"
V1 = "31 1 0:27 {root} {point} rw,nosuid - cgroup cgroup rw,memory"
OTHER = "32 1 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Lay out groups, and have this process live in one of them."""
    groups = machine.groups

    def lay(mount, membership, files, root="/"):
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc/mountinfo").write_text("\n".join([OTHER, mount.format(root=root, point=tmp_path / "top")]))
        (tmp_path / "proc/cgroup").write_text(f"8:pids:/\n{membership}\n")
        for name, text in files.items():
            path = tmp_path / "top" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(machine, "groups", lambda controller: groups(controller, tmp_path / "proc"))
        return tmp_path / "top"

    return lay


def test_the_limit_of_a_group_far_out_holds_inside_in_both_versions(tree):
    """A process of 1.6 GB was started twice in a job of 1.5 GB, whose limit stands two groups further out."""
    files = {
        "slurm/job/memory.max": "1500000000",
        "slurm/job/memory.current": "500000000",
        "slurm/job/memory.stat": "anon 5\ninactive_file 100000000",
        "slurm/job/step/task/memory.max": "max",
        "slurm/job/step/task/memory.current": "400000000",
        "slurm/memory.high": "9000000000",
    }
    top = tree(V2, "0::/slurm/job/step/task", files)
    assert (
        machine.groups(machine.MEMORY)[0] == top / "slurm/job/step/task" and machine.groups(machine.MEMORY)[-1] == top
    )
    assert machine.memory() == 1_500_000_000 and machine.free_memory() == 1_100_000_000
    assert cli.processes(1, 1.6e9) == 1
    old = {
        "a/memory.limit_in_bytes": "1400000000",
        "a/memory.usage_in_bytes": "1000000000",
        "a/memory.stat": "inactive_file 1\ntotal_inactive_file 300000000",
        "a/b/memory.limit_in_bytes": "9223372036854771712",
        "a/b/memory.usage_in_bytes": "900000000",
    }
    tree(V1, "4:memory:/a/b", old)
    assert machine.memory() == 1_400_000_000 and machine.free_memory() == 700_000_000


def test_a_container_sees_its_own_part_of_the_tree(tree):
    top = tree(V1, "4:memory:/docker/abc/inner", {"inner/memory.limit_in_bytes": "5000000"}, root="/docker/abc")
    assert machine.groups(machine.MEMORY) == [top / "inner", top] and machine.memory() == 5_000_000
    tree(V1, "4:memory:/elsewhere", {"memory.limit_in_bytes": "7000000"}, root="/docker/abc")
    assert machine.groups(machine.MEMORY) == [top] and machine.memory() == 7_000_000
    tree(V2, "0::/../elsewhere", {"memory.max": "8000000"})
    assert machine.groups(machine.MEMORY) == [top]


def test_the_cache_of_files_counts_as_free_memory(tree):
    """A container that had read the maps once was told that nothing fitted any more."""
    values = {"memory.max": "4000000", "memory.current": "3900000", "memory.stat": "anon 5\ninactive_file 3000000"}
    tree(V2, "0::/", values)
    assert machine.free_memory() == 3_100_000


def test_cores_are_granted_in_parts_and_without_groups_they_are_the_machines(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    tree(V2, "0::/a/b", {"a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"})
    assert machine.cores() == 2.5 and cli.processes(1, 1) == 2
    tree(
        V1.replace("memory", "cpu,cpuacct"),
        "4:cpu,cpuacct:/a",
        {"a/cpu.cfs_quota_us": "150000", "a/cpu.cfs_period_us": "50000"},
    )
    assert machine.cores() == 2.5, "that of v2 is still there"
    (tmp_path / "top/a/cpu.max").unlink()
    assert machine.cores() == 3
    (tmp_path / "top/a/cpu.cfs_quota_us").write_text("-1")
    assert machine.cores() == 8
    (tmp_path / "proc/cgroup").unlink()
    assert machine.groups(machine.CORES) == [] and machine.memory() > 1e8
