"""ambdiff league: what python -m ambdiff.league does."""

import logging

import click

from ambdiff.cli import fields, names

HOW_TO_GO_ON = 'the same command goes on'


def _factors(ctx, param, text: str | None) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(',')) if text else ()
    except ValueError:
        found = (0.0,)
    if not all(0 < factor < 1e6 for factor in found) or len(set(found)) < len(found):
        raise click.BadParameter(f'{text!r} is no list of different factors above 0, as 0.3,1,3', ctx, param)
    return found


@click.command(
    cls=fields.ConfigCommand,
    examples=[
        'ambdiff league --data.path=data_lidc.hdf5',
        'ambdiff league --data.path=data_lidc.hdf5 --methods=level_sets,prob_unet --seeds=2',
        'ambdiff league --data.path=data_lidc.hdf5 --methods=ssn,ssn+rank=20 --score=theirs:masks.npz --reference=ssn',
    ],
)
@click.argument('config', type=names.ConfigName(), default='league')
@click.option(
    '-o',
    '--workdir',
    '--output',
    type=click.Path(),
    metavar='DIR',
    help='Where runs and table go; default runs/league.',
)
@click.option('--methods', default='', help='Who takes part: NAME,NAME+field=value,..; default: all there are.')
@click.option('--seeds', default='1', show_default=True, help='How many of each; 1,NAME=3 for more of one.')
@click.option('--score', multiple=True, metavar='NAME:FILE', help='Masks of another program, as a row of their own.')
@click.option('--reference', default='', metavar='NAME', help='The row that differences are to; default: level_sets.')
@click.option('--images', type=click.IntRange(1), help='That everybody trains on; default: as the config says.')
@click.option('--minutes', type=click.FloatRange(0, min_open=True), help='Of training here for everybody, instead.')
@click.option('--search', callback=_factors, metavar='0.3,1,3', help='Of each learning rate, tried on validation.')
@click.option('--search-images', type=click.IntRange(1), default=3000, show_default=True, help='Of each trial.')
@click.option('--train/--no-train', default=True, help='Train what is not trained yet; or a table of what is.')
def command(config, workdir, methods, seeds, score, reference, images, minutes, search, search_images, train) -> int:
    """Train methods on the same data at the same budget, and set them side by side: DIR/league.html.

    Interrupt it at any moment: the same command goes on. CONFIG is a config whose variants are methods, as league is.
    """
    if images and minutes:
        raise click.UsageError('--images and --minutes are two budgets; give one of them')
    from ambdiff import command as commands
    from ambdiff import packaged

    file = packaged.config(config)
    place = fields.folder(workdir, file)
    commands.log(logging.INFO)
    from ambdiff import signals

    with signals.importing():
        from ambdiff.league import flow
    commands.keep_compiled()
    request = flow.Request(
        file, fields.given(), place, methods, seeds, score, reference, images, minutes, search, search_images, train
    )
    return signals.run(lambda: flow.league(request), HOW_TO_GO_ON)
