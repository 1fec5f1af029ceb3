"""What the machine and its processes say of themselves, read from /proc."""

import os
import platform
import subprocess
import time

MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Resident memory of a process, in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid):
    """CPU time of a process: the scheduler's account of its threads, which is exact where ticks are not."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as account:
                total += int(account.read().split()[0])
        except OSError:  # it has ended meanwhile
            continue
    return total / 1e9


def busy_cores(seconds=1.0):
    """Cores in use by anybody, over so many seconds."""
    def used():
        with open("/proc/stat", encoding="ascii") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        return sum(fields) - fields[3] - fields[4]  # neither idle nor waiting for a disk

    before, began = used(), time.monotonic()
    time.sleep(seconds)
    return (used() - before) / TICKS / (time.monotonic() - began)


def description(room):
    """The machine in one line, with the disk that a folder is on."""
    memory = 0
    with open("/proc/meminfo", encoding="ascii") as info:
        memory = int(info.readline().split()[1]) / 1024 / 1024
    disk = subprocess.run(["stat", "-f", "-c", "%T", room], capture_output=True, text=True).stdout.strip()
    disk = {"ext2/ext3": "ext4"}.get(disk, disk)  # as coreutils calls all three
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, data on {disk or 'an unknown file system'}"


def commit(root):
    """The commit of a checkout, and whether something in it but its documents has been changed since."""
    def git(*arguments):
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)

    name = git("rev-parse", "--short", "HEAD").stdout.strip() or "unknown"
    return name + (" and local changes" if git("diff", "--quiet", "HEAD", "--", ".", ":!docs").returncode == 1 else "")
