"""ambdiff evaluate: what python -m ambdiff.main --mode=evaluate does."""

import click

from ambdiff.cli import fields, names


@click.command(
    cls=fields.ConfigCommand,
    examples=[
        'ambdiff evaluate lidc:small --weights=lidc_small --data.path=data_lidc.hdf5',
        'ambdiff evaluate lidc:small --data.path=data_lidc.hdf5 -o runs/mine',
    ],
)
@fields.argument
@click.option('-o', '--workdir', '--output', type=click.Path(), metavar='DIR', help='A run; default runs/NAME_VARIANT.')
@click.option(
    '--weights',
    '--checkpoint',
    type=names.WeightsName(),
    metavar='WEIGHTS',
    help='A name, file or folder; default: the newest checkpoint of the run.',
)
@click.option('-n', '--num-samples', type=click.IntRange(1), help='Masks an image; default: the config’s.')
@click.option('--num-steps', type=click.IntRange(1), help='Network evaluations a mask; default: the config’s.')
@click.option('--split', type=click.Choice(['train', 'validation', 'test']), help='Default: the config’s, test.')
@click.option('--seed', type=int, help='Everything random follows from it; default 0.')
def command(config, workdir, weights, num_samples, num_steps, split, seed) -> int:
    """Sample masks of every image of a split from weights, score them, and write DIR/evaluation/report.html.

    CONFIG says which data and which model: a name as lidc:small, or FILE.py:VARIANT.
    """
    from ambdiff import packaged

    more = {
        'checkpoint': packaged.weights(weights) if weights else None,
        'seed': seed,
        'sample.num_samples': num_samples,
        'sample.num_steps': num_steps,
        'evaluate.split': split,
    }
    loaded, file = fields.load(config, **more)
    place = fields.folder(workdir, file)
    from ambdiff import main, signals

    return signals.run(lambda: main.start(loaded, place, 'evaluate'), 'start it again')
