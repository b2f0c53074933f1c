"""How much memory this process may still take."""

import pathlib

_UNBOUNDED = 1 << 60  # cgroups without a limit say a number near 2^63


def available() -> float:
    """Bytes that this process may still take: of the machine, its container and its own limits; inf where unknown."""
    return max(0.0, min(_machine(), _container(), _limits()))


def _machine() -> float:
    """What the kernel can give without swapping."""
    for line in _lines('/proc/meminfo'):
        if line.startswith('MemAvailable:'):
            return float(line.split()[1]) * 1024
    return float('inf')


def _container() -> float:
    """What is left to the control group (Docker, SLURM, systemd), version 2 or 1."""
    room = float('inf')
    for folder, limit, used, cached in (
        ('/sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
        ('/sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
    ):
        numbers = [''.join(_lines(f'{folder}/{name}')[:1]).strip() for name in (limit, used)]
        if all(number.isdecimal() for number in numbers) and int(numbers[0]) < _UNBOUNDED:
            room = min(room, int(numbers[0]) - int(numbers[1]))
            # Files that were read count as used, and give way.
            room += sum(
                int(line.split()[1]) for line in _lines(f'{folder}/memory.stat') if line.split()[:1] == [cached]
            )
    return room


def _limits() -> float:
    """What `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float('inf')
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most == resource.RLIM_INFINITY:
        return float('inf')
    pages = ''.join(_lines('/proc/self/statm')[:1]).split()
    return most - (int(pages[0]) * resource.getpagesize() if pages else 0)


def _lines(path: str) -> list[str]:
    try:
        return pathlib.Path(path).read_text('ascii').splitlines()
    except (OSError, UnicodeDecodeError):
        return []
