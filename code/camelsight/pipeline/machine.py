"""Memory and cores that this process may use: the machine's, within the limits of the control groups around it.

Imports Python's standard library alone: doctor reads it where nothing else is installed.
"""

import os
from pathlib import Path

MEMORY, CORES = "memory", "cpu"  # controllers
LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")  # v2, beyond which v2 throttles, v1
USED = ("memory.current", "memory.usage_in_bytes")
CACHED = ("inactive_file", "total_inactive_file")  # pages of files that were read, which the kernel gives up


def memory():
    """Bytes of this machine, or of the smallest control group around this process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _least(total, _limit, MEMORY)


def free_memory():
    """Bytes that this process may still allocate."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max(0, _least(free, _left, MEMORY))


def cores():
    """Cores that this process may use, as a float where a control group grants it a share of one."""
    return _least(len(os.sched_getaffinity(0)), _quota, CORES)


def _least(of_machine, of_group, controller):
    """The smallest of what the machine and each group around this process say, where they say something."""
    return min([of_machine, *(found for group in groups(controller) if (found := of_group(group)) is not None)])


def groups(controller, proc=Path("/proc/self")):
    """The folders of the control groups around this process that may limit ``controller``, the innermost first.

    A limit of v1 or v2 holds for all groups below it, and the innermost group often has none of its own.
    """
    try:
        memberships = (proc / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (proc / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    inside, found = {}, []  # inside: controller, empty for v2 -> path of the group
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        inside |= dict.fromkeys(controllers.split(","), path)
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        wanted = controller if kind == "cgroup" and controller in options.split(",") else ""
        if kind == "cgroup2" or wanted:
            found += _upwards(Path(point), root, inside.get(wanted, "/"))
    return found


def _upwards(point, root, path):
    """The group at ``path`` and those around it, as far as the mount of ``root`` at ``point`` shows them."""
    parts = Path(path).parts[1:]
    if root != "/":  # a container without a name space of its own sees its part of the tree
        parts = parts[len(Path(root).parts) - 1 :] if Path(path).is_relative_to(root) else ()
    if ".." in parts:  # the process is outside of what its name space shows
        parts = ()
    return [point.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _number(group, names):
    """The first of these files of a group that holds a number, as one; None where none does, as "max" does not."""
    for name in names:
        try:
            text = (group / name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None


def _limit(group):
    limits = [limit for name in LIMITS if (limit := _number(group, [name])) is not None]
    return min(limits, default=None)


def _left(group):
    limit, used = _limit(group), _number(group, USED)
    if limit is None or used is None:
        return None
    try:
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    statistics = dict(line.split() for line in lines)
    return limit - used + max(int(statistics.get(name, 0)) for name in CACHED)


def _quota(group):
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        quota, period = _number(group, ["cpu.cfs_quota_us"]), _number(group, ["cpu.cfs_period_us"])
    if quota in ("max", None) or not period:
        return None
    return int(quota) / int(period)
