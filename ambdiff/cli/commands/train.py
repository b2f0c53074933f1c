"""ambdiff train: what python -m ambdiff.main does."""

import click

from ambdiff.cli import fields, names


@click.command(
    cls=fields.ConfigCommand,
    examples=[
        'ambdiff train lidc:simulated --train.num_steps=200',
        'ambdiff train lidc:small --data.path=data_lidc.hdf5 -o runs/mine',
    ],
)
@fields.argument
@click.option(
    '-o',
    '--workdir',
    '--output',
    type=click.Path(),
    metavar='DIR',
    help='Where the run writes; default runs/NAME_VARIANT.',
)
@click.option(
    '--weights',
    '--checkpoint',
    type=names.WeightsName(),
    metavar='WEIGHTS',
    help='Start from these: a name, file or folder.',
)
@click.option('--seed', type=int, help='Everything random follows from it; default 0.')
@click.option('--evaluate/--no-evaluate', default=True, help='Evaluate on the test split at the end; default yes.')
@click.option('--multihost', is_flag=True, help='This is one of several processes; TPU, SLURM, Kubernetes say which.')
@click.option('--coordinator-address', metavar='HOST:PORT', help='Elsewhere: process 0; implies --multihost.')
@click.option('--num-processes', type=click.IntRange(1), help='How many processes there are.')
@click.option('--process-id', type=click.IntRange(0), help='Which one this is, from 0.')
def command(config, workdir, weights, seed, evaluate, multihost, coordinator_address, num_processes, process_id) -> int:
    """Train the model of CONFIG (a name as lidc:small, or FILE.py:VARIANT), and evaluate it.

    Interrupt it at any moment: the same command goes on from the newest checkpoint.
    """
    from ambdiff import packaged

    found = packaged.weights(weights) if weights else None
    loaded, file = fields.load(config, checkpoint=found, seed=seed)
    place = fields.folder(workdir, file)
    from ambdiff import main, signals

    processes = main.Processes(multihost, coordinator_address, num_processes, process_id)
    mode = 'train_and_evaluate' if evaluate else 'train'
    return signals.run(lambda: main.start(loaded, place, mode, processes), main.HOW_TO_GO_ON)
