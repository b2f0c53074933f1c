"""How long `import ambdiff` takes, and the command's --help: each in fresh processes, beside Python's own start.

  python benchmarks/import_time.py

The median of nine; a busy machine makes all of them longer, Python's own start as well.
"""

import statistics
import subprocess
import sys
import time

RUNS = 9
PROGRAMS = {
    'python alone': ['-c', 'pass'],
    'import ambdiff': ['-c', 'import ambdiff'],
    'ambdiff --help': ['-m', 'ambdiff', '--help'],
}


def seconds(arguments):
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main():
    taken = {name: statistics.median(seconds(arguments) for _ in range(RUNS)) for name, arguments in PROGRAMS.items()}
    for name, value in taken.items():
        print(f'{name:16} {value:.3f} s, {value - taken["python alone"]:+.3f} s beside Python alone')


if __name__ == '__main__':
    main()
