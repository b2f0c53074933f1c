"""ambdiff compare: runs on the same images beside each other."""

import pathlib

import click

from ambdiff import files
from ambdiff.cli import style


@click.command(
    cls=style.Subcommand,
    examples=[
        'ambdiff compare runs/first runs/second',
        'ambdiff compare runs/mine/evaluation scores_of_another_program -o comparison',
    ],
)
@click.argument('runs', metavar='RUN RUN ..', type=click.Path(path_type=pathlib.Path), nargs=-1, required=True)
@click.option(
    '-o',
    '--output',
    type=click.Path(path_type=pathlib.Path),
    metavar='DIR',
    default='comparison',
    show_default=True,
    help='Where compare.html goes.',
)
def command(runs, output) -> None:
    """Compare runs on the same images: one table, and paired differences to the first RUN.

    A RUN is a folder that ambdiff train, evaluate or score wrote. Images are matched by name; all need the same number
    of samples, or the first so many of a larger number of independent ones are taken.
    """
    files.check_place(output, '-o')
    from ambdiff import command as commands
    from ambdiff.evaluation.comparison import files as comparison

    commands.keep_compiled()
    found = comparison.compare(runs, output)
    click.echo(comparison.format_differences(found))
    for note in found.notes:
        click.echo(note)
    click.echo(f'{output / "compare.html"}')
