"""python -m ambdiff: the command `ambdiff`."""

from ambdiff.cli.entry import ambdiff

if __name__ == '__main__':
    ambdiff()
