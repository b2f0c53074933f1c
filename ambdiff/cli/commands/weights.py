"""ambdiff weights: what comes along, from the files' own configs and the cards beside them."""

import pathlib
import re

import click

from ambdiff import packaged
from ambdiff.cli import style


@click.command(cls=style.Subcommand, examples=['ambdiff weights'])
def command() -> None:
    """List the weights that come along: what they were trained on, the input they expect, and what a mask costs.

    ambdiff predict --weights=NAME and ambdiff evaluate CONFIG --weights=NAME take a name from this list.
    """
    for name in packaged.weights_names():
        default = ' (the default of ambdiff predict)' if name == packaged.DEFAULT_WEIGHTS else ''
        click.echo(f'{name}{default}')
        for title, text in _facts(packaged.weights(name)).items():
            click.echo(f'  {title:14}{text}')


def _facts(path: pathlib.Path) -> dict[str, str]:
    """What is known of a file of weights, a line each."""
    from ambdiff import methods
    from ambdiff.runtime import checkpoint

    config = checkpoint.load_config(str(path))
    data = config.data
    size, channels = data.image_size, data.channels
    if data.intensity == 'hu_window':
        values = 'HU from {:g} to {:g}'.format(*data.hu_window)
    else:
        values = f'values by the rule {data.intensity}'
    spacing = f'{data.spacing:g} mm a pixel' if data.spacing else 'pixels of the scan’s own size'
    evaluations = f'{methods.create(config).evaluations:g} network evaluations, at N = {config.sample.num_samples}'
    facts = {'trained on': _of_card(path.with_suffix('.md'), 'data')} if path.with_suffix('.md').is_file() else {}
    return facts | {
        'input': f'{size} x {size}, {channels} channel{"s" if channels > 1 else ""}, {values}, {spacing}',
        'a mask costs': evaluations,
        'method': config.method.name,
        'size': f'{path.stat().st_size / 2**20:.1f} MiB',
        'file': str(path),
    }


def _of_card(path: pathlib.Path, row: str) -> str:
    """The first part of a row of a card's table, up to a colon."""
    found = re.search(rf'^\| {row} \| ([^|:]+)', path.read_text('utf-8'), re.MULTILINE)
    return found[1].strip() if found else ''
