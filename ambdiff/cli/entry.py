"""The command `ambdiff` and the list of its subcommands.

Each is imported when it is called, and what it needs when its command line is known to be good: `ambdiff --help` and a
typing mistake take no longer than Python's own start. A new command is a file of `ambdiff/cli/commands` that defines
`command`, and a line in COMMANDS.
"""

import atexit
import gc
import importlib

import click

from ambdiff.cli import style
from ambdiff.version import __version__

COMMANDS = {  # name: (file of ambdiff/cli/commands, what it does)
    'train': ('train', 'Train a model on a data set, and evaluate it.'),
    'evaluate': ('evaluate', 'Sample masks of a test split from weights, and score them.'),
    'predict': ('predict', 'Sample plausible masks of your own images.'),
    'score': ('score_masks', 'Score masks that any program made against raters’ masks.'),
    'compare': ('compare', 'Compare scored runs on the same images.'),
    'league': ('league', 'Train several methods on the same data, and set them side by side.'),
    'check': ('check', 'Read a data set once: what it holds and what is faulty.'),
    'convert': ('convert', 'Convert weights from and to the released PyTorch code, or pack them.'),
    'export': ('export', 'Write weights as one file that runs with jax alone.'),
    'weights': ('weights', 'List the weights that come along.'),
}

# What is left goes with the process: to look through it for garbage once more takes as long as a small import.
atexit.register(gc.freeze)


class _Commands(style.Group):
    """The subcommands, each imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f'ambdiff.cli.commands.{COMMANDS[name][0]}').command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section('Commands'):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    'ambdiff',
    cls=_Commands,
    examples=['ambdiff predict scan.dcm --at 210,143', 'ambdiff train lidc:simulated'],
    context_settings=style.SETTINGS,
    epilog='ambdiff COMMAND --help explains a command.',
)
@click.version_option(__version__, '--version', message='%(version)s')
def ambdiff() -> None:
    """Several plausible outlines of one medical image, where experts disagree."""
