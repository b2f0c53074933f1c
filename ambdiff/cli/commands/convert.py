"""ambdiff convert: what python -m ambdiff.convert does."""

import click

from ambdiff.cli import fields, names


@click.command(
    cls=fields.ConfigCommand,
    examples=[
        'ambdiff convert lidc --from-torch=savedmodel.pt -o runs/released',
        'ambdiff convert lidc:small --to-safetensors=runs/mine -o mine.safetensors',
    ],
)
@fields.argument
@click.option(
    '--from-torch', type=click.Path(), metavar='FILE', help='A released checkpoint (.pt or .safetensors) to read.'
)
@click.option(
    '--to-torch', type=names.WeightsName(), metavar='WEIGHTS', help='Weights to write as a released checkpoint.'
)
@click.option('--to-safetensors', type=click.Path(), metavar='RUN', help='A run or a step of it to pack into one file.')
@click.option('-o', '--output', type=click.Path(), metavar='FILE_OR_DIR', required=True, help='What to write.')
def command(config, from_torch, to_torch, to_safetensors, output) -> int:
    """Convert weights of CONFIG from or to the released PyTorch code, or pack them into one .safetensors file."""
    loaded, _ = fields.load(config)
    from ambdiff import convert, signals

    sources = {'from_torch': from_torch, 'to_torch': to_torch, 'to_safetensors': to_safetensors}
    return signals.run(lambda: convert.convert(loaded, sources, output), 'nothing is written')
