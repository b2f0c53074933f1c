"""ambdiff export: weights as one file that runs with jax alone."""

import click

from ambdiff import packaged
from ambdiff.cli import names, style


@click.command(
    cls=style.Subcommand,
    examples=[
        'ambdiff export lidc_small -o lidc_small.zip',
        'ambdiff export runs/mine -o mine.zip --platforms=cpu,cuda,tpu -n 32',
    ],
)
@click.argument('weights', type=names.WeightsName(), default=packaged.DEFAULT_WEIGHTS)
@click.option('-o', '--output', type=click.Path(), metavar='FILE', required=True, help='The file to write.')
@click.option('--platforms', default='cpu', show_default=True, help='Where it will run: of cpu, cuda, rocm, tpu.')
@click.option('-n', '--num-samples', type=click.IntRange(1, 1000), help='Masks an image; the weights’ own by default.')
@click.option('--independent', is_flag=True, help='Independent masks, where the weights’ config says stratified.')
def command(weights, output, platforms, num_samples, independent) -> int:
    """Write WEIGHTS and their sampler as one file that needs no ambdiff to run, only jax (docs/deploy.md).

    It takes any number of images at once, and gives the masks that ambdiff gives for the same numbers.
    """
    from ambdiff import exported, signals

    def run() -> int:
        written = exported.write(weights, output, platforms.split(','), num_samples, independent)
        click.echo(f'{written}: {written.stat().st_size / 2**20:.1f} MiB, for {platforms}; docs/deploy.md runs it')
        return 0

    return signals.run(run, 'nothing is written')
