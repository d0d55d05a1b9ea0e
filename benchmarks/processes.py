"""CPU time and memory of a server with all its children, from /proc.

Peak: the kernel's own high-water mark of each process (VmHWM), set back before a case, so no sample can miss it. It is
resident memory: pages that several processes share count in each. At rest: PSS, which divides them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def tree(pid: int) -> Iterator[int]:
    """A process and all below it that are alive now."""
    yield pid
    for task in _entries(PROC / str(pid) / "task"):
        for child in _read(task / "children").split():
            yield from tree(int(child))


def cpu_seconds(pid: int) -> float:
    """What the tree has used, with children that have ended and were waited for."""
    return sum(_ticks(_read(PROC / str(process) / "stat")) for process in tree(pid)) / TICKS


def _ticks(stat: str) -> int:
    """utime, stime, cutime and cstime of a stat line; the name before them may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def reset_peak(pid: int) -> None:
    for process in tree(pid):
        (PROC / str(process) / "clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """Megabytes (10^6), since reset_peak."""
    return sum(_kilobytes(_read(PROC / str(process) / "status"), "VmHWM") for process in tree(pid)) * 1024 / 1e6


def pss_mb(pid: int) -> float:
    return sum(_kilobytes(_read(PROC / str(process) / "smaps_rollup"), "Pss") for process in tree(pid)) * 1024 / 1e6


def rss_mb(pid: int) -> float:
    """Resident now."""
    return sum(_kilobytes(_read(PROC / str(process) / "status"), "VmRSS") for process in tree(pid)) * 1024 / 1e6


def open_files(pid: int) -> int:
    return sum(len(_entries(PROC / str(process) / "fd")) for process in tree(pid))


def _kilobytes(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return 0  # a process that has just ended


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
