"""ambdiff check: what python -m ambdiff.data.check does."""

import click

from ambdiff.cli import fields


@click.command(
    cls=fields.ConfigCommand,
    examples=[
        'ambdiff check lidc:small --data.path=data_lidc.hdf5',
        'ambdiff check bone_us --data.path=cases --strict',
    ],
)
@fields.argument
@click.option('--strict', is_flag=True, help='Exit status 2 where any file is faulty or a split leaks.')
@click.option(
    '-o', '--output', type=click.Path(), metavar='DIR', help='Where the page goes; default runs/NAME_VARIANT/data.'
)
def command(config, strict, output) -> int:
    """Read every example of the data of CONFIG once: what it holds, what is faulty, what leaks between splits."""
    loaded, file = fields.load(config)
    place = fields.folder(output, file)
    from ambdiff import signals
    from ambdiff.data import check

    return signals.run(lambda: check.check(loaded, place if output else place / 'data', strict), 'start it again')
