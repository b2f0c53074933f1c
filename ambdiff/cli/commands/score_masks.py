"""ambdiff score: the scores of `ambdiff.evaluation.from_files`."""

import pathlib

import click

from ambdiff import files
from ambdiff.cli import fields

_PLACE = {'type': click.Path(path_type=pathlib.Path), 'metavar': 'DIR_OR_NPZ'}


@click.command(
    cls=fields.ConfigCommand,
    examples=[
        'ambdiff score --raters=cases --samples=drawn -o scores',
        'ambdiff score --samples=runs/mine/evaluation/masks.npz -o scores',
        'ambdiff score --raters=data_lidc.hdf5 --train=data_lidc.hdf5 --samples=drawn.npz -o scores',
    ],
)
@click.option('--samples', required=True, help='What was drawn, matched with raters by the name of the case.', **_PLACE)
@click.option(
    '--raters', help='The raters’ masks, also a data set that training reads; default: the file of --samples.', **_PLACE
)
@click.option(
    '-o', '--output', required=True, type=click.Path(path_type=pathlib.Path), metavar='DIR', help='Where scores go.'
)
@click.option(
    '--patients',
    type=click.Path(path_type=pathlib.Path),
    metavar='CSV',
    help='Columns case and patient: standard errors then take images of one patient together.',
)
@click.option('--train', help='Masks of other patients, for the baseline of that name.', **_PLACE)
@click.option('--num-classes', type=click.IntRange(1, 254), default=1, show_default=True, help='K of labels 0 .. K.')
@click.option(
    '--draws',
    type=click.Choice(['independent', 'dependent']),
    help='How the samples of a case relate to each other; default: as masks.npz says, else independent.',
)
@click.option('-n', '--num-samples', type=click.IntRange(1), help='The first so many samples of each case.')
@click.option('--only-common', is_flag=True, help='Leave out cases that are on one side alone.')
@click.option('--split', type=click.Choice(['train', 'validation', 'test']), default='test', show_default=True)
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True, help='Of the baselines’ draws.')
def command(
    samples, raters, output, patients, train, num_classes, draws, num_samples, only_common, split, seed
) -> None:
    """Score masks that any program made against raters' masks: DIR/metrics.json, per_image.csv and report.html.

    A folder holds CASE/mask_1.png .. of raters and CASE/sample_0.png .. of samples, or CASE_0.png .. all in one; PNG,
    JPEG, TIFF or NIfTI. An .npz is evaluate's masks.npz, or has an array [K, H, W] for each case. Fields of the data
    group (--data.num_raters=5) say how a data set is read.
    """
    files.check_place(output, '-o')
    data = fields.data(num_classes=num_classes)
    from ambdiff import command as commands
    from ambdiff.evaluation import from_files

    commands.keep_compiled()
    from_files.score(
        from_files.Request(samples, raters, train, patients, data, split, draws, num_samples, only_common, seed), output
    )
