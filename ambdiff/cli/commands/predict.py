"""ambdiff predict: what python -m ambdiff.predict does."""

import click

from ambdiff import packaged
from ambdiff.cli import names, style


@click.command(
    cls=style.Subcommand,
    examples=[
        'ambdiff predict scan.dcm --at 210,143',
        'ambdiff predict scans/ -n 32 -o out --weights=runs/mine',
    ],
)
@click.argument('inputs', metavar='INPUT', type=click.Path(), nargs=-1, required=True)
@click.option(
    '-o',
    '--output',
    type=click.Path(),
    metavar='DIR',
    default='predictions',
    show_default=True,
    help='Where the results go.',
)
@click.option(
    '--at',
    default='',
    metavar='X,Y[,Z]',
    help='Look around this point, in pixels; ";" between several, or a CSV with columns x, y, z, file. Without it, '
    'tiles cover every slice.',
)
@click.option(
    '--at-mm',
    '--at_mm',
    default='',
    metavar='X,Y,Z',
    help='Instead of --at: mm in the world of the file, LPS for DICOM, RAS for NIfTI.',
)
@click.option(
    '--slices',
    type=click.IntRange(0, 10**4),
    default=0,
    metavar='K',
    help='Look at K slices around a point of a volume; 1: its own alone. Default: all within 20 mm, 8 on either side '
    'where their distance is unknown.',
)
@click.option('-n', '--num-samples', type=click.IntRange(1, 1000), default=16, show_default=True, help='Masks a case.')
@click.option('--num-steps', type=click.IntRange(1, 10**6), help='Evaluations a mask; default: the weights’ own.')
@click.option(
    '--weights',
    '--checkpoint',
    type=names.WeightsName(),
    help=f'A name (ambdiff weights lists them), a .safetensors file, a run or a step of it; default '
    f'{packaged.DEFAULT_WEIGHTS}.',
)
@click.option(
    '--anonymise',
    is_flag=True,
    help='Call cases by their content: no page, table or message names a file, folder or patient.',
)
@click.option('--seed', type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help='Same seed, same masks.')
@click.option(
    '--smallest-part',
    type=click.IntRange(1, 2**24),
    default=1,
    show_default=True,
    metavar='PIXELS',
    help='Connected parts of fewer pixels do not count for answers, areas and empty shares.',
)
@click.option('--everywhere', is_flag=True, help='Sample also the tiles of a CT that show nothing of the body.')
@click.option('--shared', is_flag=True, help='Other processes, on any hosts, share DIR: each case is made by one.')
@click.option(
    '--screen',
    type=click.FloatRange(0, 1, max_open=True),
    is_flag=False,
    flag_value=0.0,
    metavar='[SHARE]',
    help='Leave tiles empty of which at most this share (0) of the masks of a first, cheap pass marks anything.',
)
def command(
    inputs,
    output,
    at,
    at_mm,
    slices,
    num_samples,
    num_steps,
    weights,
    smallest_part,
    anonymise,
    seed,
    everywhere,
    screen,
    shared,
) -> int:
    """Sample plausible masks of INPUT: a PNG, JPEG, TIFF, NIfTI or DICOM file, or a folder of them.

    DIR/index.html shows them. Several files and folders may be given.
    """
    chosen = packaged.weights(weights or packaged.DEFAULT_WEIGHTS)
    if not weights:
        click.echo(f'weights: {packaged.DEFAULT_WEIGHTS}, the default (--weights names others)', err=True)
    from ambdiff import predict

    flags = [f'--checkpoint={chosen}', f'--output={output}', f'--num_samples={num_samples}', f'--seed={seed}']
    flags += [f'--smallest_part={smallest_part}']
    flags += [f'--at={at}'] if at else []
    flags += [f'--at_mm={at_mm}'] if at_mm else []
    flags += [f'--slices={slices}']
    flags += [f'--num_steps={num_steps}'] if num_steps else []
    flags += ['--anonymise'] if anonymise else []
    flags += [f'--screen={screen}'] if screen is not None else []
    flags += ['--shared'] if shared else []
    flags += ['--everywhere'] if everywhere else []
    return predict.main([*flags, *(f'--input={path}' for path in inputs)])
