"""python -m ambdiff.league --config=configs/league.py --config.data.path=FILE: what ambdiff league does."""

from ambdiff import signals

if __name__ == '__main__':
    signals.at_start()

import re
import sys
from collections.abc import Sequence

from ambdiff.cli.entry import ambdiff


def arguments(words: Sequence[str]) -> list[str]:
    """The words of this command line as those of `ambdiff league`, which takes the config by itself."""
    text = '\0'.join(words)
    text = re.sub(r'(^|\0)--config[=\0]([^\0]*)', r'\1\2', text)
    return ['league', *filter(None, text.split('\0'))]


if __name__ == '__main__':
    ambdiff(arguments(sys.argv[1:]))
