"""python -m ambdiff.predict --checkpoint=WEIGHTS --input=FILE_OR_FOLDER --output=DIR: plausible masks for your images.

Every case is a folder below DIR (`ambdiff.prediction.output`) as the input has them; DIR/index.html shows all,
DIR/predictions.csv lists them. A case that is there already with the same content, weights and settings is skipped;
with others it is made anew. A faulty file is named, the rest goes on, and the exit status is 2.

Everything random follows from the seed and the content of a case's files: the same masks whatever the file's name, the
files beside it, and the number of devices. The config comes with the weights.
"""

import argparse
import contextlib
import dataclasses
import logging
import pathlib
import sys
from collections.abc import Iterator

# All else is imported once the flags are known to be good and interruptions are told in one line.
from ambdiff import signals
from ambdiff.errors import UserError
from ambdiff.text import printable


class _Parser(argparse.ArgumentParser):
    """A mistake in a flag ends with one line and exit status 2."""

    def error(self, message):
        from ambdiff.command import fail

        sys.exit(fail(f'{message}; --help lists the flags'))


def parse_flags(argv: list[str]) -> argparse.Namespace:
    """The flags; exits with status 2 on a mistake."""
    parser = _Parser('python -m ambdiff.predict', description=__doc__.partition('\n')[0], allow_abbrev=False)
    add = parser.add_argument
    add('--checkpoint', required=True, help='weights: a .safetensors file, a workdir or the folder of a step')
    add(
        '--input',
        required=True,
        action='append',
        help='PNG, JPEG, TIFF, NIfTI, DICOM file, or a folder of them, with all below it; several may be given',
    )
    add('--output', required=True, help='folder to write to')
    add('--num_samples', type=int, default=16, help='masks a case (default 16)')
    add('--num_steps', type=int, help="network evaluations a mask (default: the weights' own)")
    add(
        '--at',
        default='',
        help='crops around these points: x,y[,z] in pixels, ";" between several, or a CSV with '
        'columns file, x, y, z; for NIfTI the indices in the file. Without it, tiles cover every slice',
    )
    add(
        '--at_mm',
        '--at-mm',
        default='',
        help="instead of --at: x,y,z in mm of the file's world, LPS for DICOM and RAS for NIfTI; ';' between several",
    )
    add(
        '--slices',
        type=int,
        default=0,
        help='slices of a volume looked at around a point, its own in the middle; 1: that alone; default 0: all '
        'within 20 mm of it, 8 on either side where their distance is unknown',
    )
    add('--seed', type=int, default=0, help='the same seed gives the same masks (default 0)')
    add(
        '--smallest_part',
        type=int,
        default=1,
        help='connected parts of fewer pixels do not count for answers, areas and empty shares (default 1: all count)',
    )
    add('--everywhere', action='store_true', help='sample also the tiles of a CT that show nothing of the body')
    add(
        '--shared',
        action='store_true',
        help='other processes, on any hosts, with the same command share the output: each case is made by one of them',
    )
    add(
        '--screen',
        type=float,
        nargs='?',
        const=0.0,
        metavar='SHARE',
        help='leave tiles empty of which at most this share of the masks of a first, cheap pass marks anything (0 '
        'where no number is given; default: no such pass)',
    )
    add(
        '--anonymise',
        action='store_true',
        help='call cases by their content: no page, table or message names a file, folder or patient',
    )
    flags = parser.parse_args(argv)
    bounds = {'num_samples': (1, 1000), 'num_steps': (1, 10**6), 'seed': (0, 2**32 - 1), 'smallest_part': (1, 2**24)}
    bounds['slices'] = (0, 10**4)
    for name, (least, most) in bounds.items():
        value = getattr(flags, name)
        if value is not None and not least <= value <= most:
            parser.error(f'--{name}={value} is out of range: {least} to {most}')
    if flags.screen is not None and not 0 <= flags.screen < 1:
        parser.error(f'--screen={flags.screen:g} is out of range: 0 and more, below 1')
    return flags


def predict(flags: argparse.Namespace) -> int:
    """Predicts what the flags name; returns the exit status: 0, or 2 where a case failed.

    Raises:
      UserError: a flag, the weights or the whole input cannot be used, or the output cannot be written.
    """
    # What the weights need not be loaded for is told before they are, which takes a moment.
    from ambdiff import files
    from ambdiff.prediction import inputs, points

    folder = pathlib.Path(flags.output)
    files.check_place(folder, '--output')
    weights_say = _of_weights(flags)
    found = inputs.find([pathlib.Path(path) for path in flags.input], folder)
    chosen = points.parse(flags.at, [item.source for item in found.inputs], flags.at_mm)
    if flags.anonymise:
        found, chosen = _anonymous(found, chosen)
    items = {item.name: item for item in found.inputs if item.source in chosen}
    images_read = {} if weights_say is None else _first_sound(items, chosen, folder, *weights_say)
    with signals.importing():
        import tqdm

        from ambdiff.command import fail, keep_compiled
        from ambdiff.prediction import claims as claims_lib
        from ambdiff.prediction import earlier, failure, flow
        from ambdiff.prediction.crop_sampler import SCREEN_SAMPLES, CropSampler
        from ambdiff.prediction.outcome import Outcome
        from ambdiff.prediction.result import Settings
        from ambdiff.prediction.watch import Forecast
    keep_compiled()
    model = CropSampler(flags.checkpoint)
    settings = Settings(
        flags.num_samples,
        flags.num_steps or model.config.sample.num_steps,
        flags.seed,
        flags.smallest_part,
        flags.slices,
        flags.everywhere,
        flags.screen,
    )
    sampler = model.sampler(settings)  # told before anything is read if it cannot be
    dearer = 0.0
    if settings.screen is not None:
        dearer = sampler.evaluations * settings.num_samples / (model.screener().evaluations * SCREEN_SAMPLES)
    writing = claims_lib.sharing if flags.shared else earlier.writing
    with writing(folder, items) as claims, tqdm.tqdm(unit='crop', desc='predicting') as bar:
        output = Outcome(folder, lambda line: bar.write(printable(line), file=sys.stderr))
        watch = Forecast(bar, output.say, len(items), sampler.chunk, dearer)
        for line in found.skipped:
            output.say(f'ambdiff: {line}')
        for source, reason in found.faults.items():
            output.fault(printable(source), f'{printable(source)}: {reason}')

        def images() -> Iterator:
            left = list(items.values())
            while left:
                others = []
                for item in left:
                    if reason := claims and claims.failed(item.name):
                        output.fault(item.title, reason)
                        watch.ended(item)
                    elif claims and not claims.take(item.name):
                        others.append(item)
                    elif image := failure.guarded(
                        item, 'read', lambda item=item: _plan(item, model, settings, chosen, output, images_read)
                    ):
                        yield image
                    else:
                        end(item.name)
                        watch.ended(item)
                if left := others:
                    yield None  # what was taken is made before others are waited for
                    claims_lib.wait()

        def end(name: str) -> None:
            output.done[name] = items[name].title
            if claims:
                claims.release(name)

        try:
            for given in flow.predictions(model, settings, images(), watch):
                if not isinstance(given, failure.Failure):
                    item = items[given.name]
                    given = failure.guarded(item, 'written', lambda given=given: output.write(given))
                if output.broken:
                    raise output.broken
                if given:
                    output.fault(given.item.title, given.reason)
                    if claims:
                        claims.fail(given.item.name, given.reason)
                else:
                    end(item.name)
        except BaseException:
            with contextlib.suppress(OSError):  # of the same kind
                output.close(found.inputs)
            raise
        output.close(found.inputs)
    total = len(items) + len(found.faults)
    print(f'{len(output.done)} of {total} cases done: {printable(str(folder / "index.html"))}')
    if output.failed and total == 1:
        return 2  # the one line that says why has been said
    if output.failed:
        table = folder / earlier.TABLE
        return fail(f'{len(output.failed)} of {total} cases failed, named above and in {table}')
    return 0


def _of_weights(flags: argparse.Namespace) -> tuple[int, int] | None:
    """(image channels, classes of masks) that the weights say they take; None where loading them tells why not.

    Raises:
      UserError: there are no weights, or they have fewer steps than are asked for.
    """
    from ambdiff.runtime import weights_place

    found = weights_place.said(flags.checkpoint, 'data.channels', 'data.num_classes', 'diffusion.num_steps')
    if found is None:
        return None
    channels, num_classes, steps = found
    slices = 2 * (weights_place.said(flags.checkpoint, 'data.neighbours') or [0])[0] + 1
    if channels % slices:
        return None
    if flags.num_steps and flags.num_steps > steps:
        raise UserError(f'--num_steps={flags.num_steps} is more than the {steps} steps of the weights')
    return channels // slices, num_classes


def _first_sound(items, chosen, folder: pathlib.Path, channels: int, num_classes: int) -> dict:
    """{the name of the first input that can be predicted: its image}; {} where some have results already.

    Raises:
      UserError: there are inputs, and none can be predicted.
    """
    from ambdiff.prediction import failure, points

    def look(item):
        volume = item.read(channels)
        for point in chosen[item.source]:
            points.to_volume(point, volume)
        item.raters(volume, num_classes)
        return volume

    if any((folder / name).exists() for name in items):
        return {}
    reasons = []
    for name, item in items.items():
        found = failure.guarded(item, 'read', lambda item=item: look(item))
        if not isinstance(found, failure.Failure):
            return {name: found}
        reasons.append(found.reason)
    if not reasons:
        return {}
    raise UserError(reasons[0] if len(reasons) == 1 else f'none of {len(reasons)} cases can be predicted; {reasons[0]}')


def _plan(item, model, settings, chosen, output, images_read: dict):
    """An image read and cut into crops; None where its result is there already."""
    from ambdiff.data.files import neighbours
    from ambdiff.prediction import earlier, flow
    from ambdiff.prediction.unfinished import Unfinished

    points = chosen[item.source]
    follows_from = flow.settings_of(item, model, settings, points)
    if earlier.claim(output.folder / item.name, follows_from):
        return None
    volume = images_read.pop(item.name, None)
    volume = item.read(neighbours.own_channels(model.config.data)) if volume is None else volume
    image = flow.plan(item, volume, model, settings, points, follows_from)
    image = dataclasses.replace(image, unfinished=Unfinished(output.folder, item.name, follows_from))
    for note in image.plan.notes:
        output.say(f'ambdiff: {item.title}: {item.told(note)}')
    return image


def _anonymous(found, chosen):
    """What was found and the points to look at, with inputs called by their content; equal ones are one."""
    from ambdiff.prediction import inputs

    items, points, faults = {}, {}, {}
    for item in found.inputs:
        try:
            new = inputs.anonymous(item)
        except OSError as error:
            faults[f'case {len(faults) + 1} without a name'] = f'cannot be read ({error.strerror})'
            continue
        items[new.source] = new
        if item.source in chosen:
            points[new.source] = chosen[item.source]
    for _ in found.faults:
        faults[f'case {len(faults) + 1} without a name'] = 'cannot be read; without --anonymise it is named'
    skipped = [f'{len(found.skipped)} notes on what is skipped; without --anonymise they are shown'] * any(
        found.skipped
    )
    return inputs.Found(list(items.values()), skipped, faults), points


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    work = lambda: _run(parse_flags(sys.argv[1:] if argv is None else argv))
    return signals.run(work, 'the same command goes on with the cases that are left')


def _run(flags: argparse.Namespace) -> int:
    from ambdiff import command

    command.log(logging.ERROR)
    try:
        return predict(flags)
    except UserError as error:
        return command.fail(error)
    except OSError as error:
        read = 'the input' if flags.anonymise else ', '.join(flags.input[:3])
        return command.fail(
            f'cannot read {read} or write below {flags.output}: {error}; once that is mended, '
            'the same command goes on with the cases that are left'
        )


if __name__ == '__main__':
    sys.exit(main())
