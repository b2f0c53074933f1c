"""python -m ambdiff.predict --checkpoint=WEIGHTS --input=FILE_OR_FOLDER --output=DIR: plausible masks for your images.

Every case is a folder of DIR (`ambdiff.prediction.output`); DIR/index.html shows all, DIR/predictions.csv lists them.
A case that is there already with the same content, weights and settings is skipped; with others it is made anew. A
faulty file is named, the rest goes on, and the exit status is 2.

Everything random follows from the seed and the content of a case's files: the same masks whatever the file's name, the
files beside it, and the number of devices. The config comes with the weights.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import logging
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

import ambdiff
from ambdiff import command
from ambdiff.config import default
from ambdiff.errors import UserError

# Groups of the config that masks depend on.
_MATTERS = ('model', 'diffusion', 'method', 'sample')
_DATA = ('image_size', 'channels', 'num_classes', 'intensity', 'hu_window', 'spacing')


class _Parser(argparse.ArgumentParser):
    """A mistake in a flag ends with one line and exit status 2."""

    def error(self, message):
        sys.exit(command.fail(f'{message}; --help lists the flags'))


def parse_flags(argv: list[str]) -> argparse.Namespace:
    """The flags; exits with status 2 on a mistake."""
    parser = _Parser('python -m ambdiff.predict', description=__doc__.partition('\n')[0], allow_abbrev=False)
    add = parser.add_argument
    add('--checkpoint', required=True, help='weights: a .safetensors file, a workdir or the folder of a step')
    add('--input', required=True, help='PNG, JPEG, TIFF, NIfTI, DICOM file, or a folder of them, with all below it')
    add('--output', required=True, help='folder to write to')
    add('--num_samples', type=int, default=16, help='masks a case (default 16)')
    add('--num_steps', type=int, default=8, help='network evaluations a mask (default 8)')
    add(
        '--at',
        default='',
        help='crops around these points: x,y[,z] in pixels, ";" between several, or a CSV with '
        'columns file, x, y, z; for NIfTI the indices in the file. Without it, tiles cover every slice',
    )
    add('--seed', type=int, default=0, help='the same seed gives the same masks (default 0)')
    flags = parser.parse_args(argv)
    for name, least, most in (('num_samples', 1, 1000), ('num_steps', 1, 10**6), ('seed', 0, 2**32 - 1)):
        if not least <= getattr(flags, name) <= most:
            parser.error(f'--{name}={getattr(flags, name)} is out of range: {least} to {most}')
    return flags


class Model:
    """Weights with what they were trained for, ready to draw masks."""

    def __init__(self, flags: argparse.Namespace):
        import jax

        from ambdiff import methods, sampling
        from ambdiff.runtime import checkpoint, sharding

        self.config = checkpoint.load_config(flags.checkpoint).copy_and_resolve_references()
        self.config.sample.num_samples, self.config.sample.num_steps = flags.num_samples, flags.num_steps
        self.config.seed, self.config.mesh = flags.seed, default().mesh
        if flags.num_steps > self.config.diffusion.num_steps:
            most = self.config.diffusion.num_steps
            raise UserError(f'--num_steps={flags.num_steps} is more than the {most} steps of the weights')
        mesh = sharding.local_mesh()
        self._params, step = checkpoint.load_weights(flags.checkpoint, self.config, sharding.replicated(mesh))
        self.weights = {
            'name': pathlib.Path(flags.checkpoint).name,
            'step': step,
            'sha256': _digest(self._params, self.config),
        }
        self._sampler = sampling.Sampler(self.config, methods.create(self.config), mesh)
        self._key = jax.random.key(flags.seed)
        self.chunk = self._sampler.chunk

    def draw(self, crops: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """Crops [n, S, S, C], uint32 numbers [n] folded into the seed -> masks [n, N, S, S]."""
        from ambdiff import sampling

        keys = sampling.image_keys(self._key, folds)
        return self._sampler(self._params, crops, keys)


def _digest(params, config) -> str:
    """SHA-256 of weights and of what else masks depend on."""
    import jax

    saved = json.loads(config.to_json())
    groups = {name: saved[name] for name in _MATTERS}
    groups['data'] = {name: saved['data'][name] for name in _DATA}
    for name in ('num_samples', 'num_steps', 'memory_mib'):
        del groups['sample'][name]
    digest = hashlib.sha256(json.dumps(groups, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


class _Run:
    """Cases on their way: read, cut into crops, drawn together whatever case they are of, written."""

    def __init__(self, model: Model, flags: argparse.Namespace, output: pathlib.Path, points: dict, say: Callable):
        self.model, self.flags, self.output, self.points, self.say = model, flags, output, points, say
        self.failed: dict[str, str] = {}
        self.done: dict[str, pathlib.Path] = {}
        self.crops = 0

    def settings(self, case, sha256: str) -> dict:
        """What a finished case must share to be skipped."""
        raters = {'raters_sha256': case.masks_sha256()} if case.masks else {}
        return {
            'input_sha256': sha256,
            **raters,
            'weights_sha256': self.model.weights['sha256'],
            'num_samples': self.flags.num_samples,
            'num_steps': self.flags.num_steps,
            'seed': self.flags.seed,
            'at': [list(point) for point in self.points[case.source]],
        }

    def fault(self, case, error: Exception) -> None:
        """Names a case that could not be predicted; the rest goes on."""
        reason = ' '.join(str(error).split()) or type(error).__name__
        self.failed[case.source] = reason if case.files[0].name in reason else f'{case.source}: {reason}'
        self.say(f'ambdiff: {self.failed[case.source]}')

    def prepare(self, case):
        """(case, volume, plan, settings, raters) of a case to draw, None for one that is done or faulty."""
        from ambdiff.prediction import output as predict_output
        from ambdiff.prediction.crops import Plan

        try:
            settings = self.settings(case, case.sha256())
            before = predict_output.finished(self.output / case.name)
            if before and before['settings'] == settings:
                self.done[case.source] = self.output / case.name
                return None
            volume = case.read(self.model.config.data.channels)
            plan = Plan(volume, self.model.config.data, self.points[case.source])
            raters = case.raters(volume, self.model.config.data.num_classes)
        except (UserError, OSError) as error:
            return self.fault(case, error)
        except Exception as error:  # a stranger's file can break a reader in any way
            return self.fault(case, UserError(f'cannot be read ({type(error).__name__}: {error})'))
        for note in plan.notes:
            self.say(f'ambdiff: {case.source}: {note}')
        self.crops += len(plan.crops)
        # Only its geometry is needed from here on: a broadcast zero takes no memory.
        volume = dataclasses.replace(volume, values=np.broadcast_to(np.uint8(0), volume.values.shape))
        return case, volume, plan, settings, raters

    def masks(self, cases) -> Iterator[tuple]:
        """(prepared case, its crops' masks [c, N, S, S]) in order; a chunk holds crops of many cases."""
        waiting, held = collections.deque(), []  # cases with crops under way; crops of the next chunk
        for case in cases:
            prepared = self.prepare(case)
            if prepared is None:
                yield None, None
                continue
            number = np.uint32(int(prepared[3]['input_sha256'][:8], 16))
            waiting.append((prepared, []))
            for crop in prepared[2].draw():
                held.append((crop, number, waiting[-1][1]))
                if len(held) == self.model.chunk:
                    self._draw(held)
            yield from self._ready(waiting)
        self._draw(held)
        yield from self._ready(waiting)

    def _draw(self, held: list) -> None:
        if held:
            drawn = self.model.draw(np.stack([crop for crop, *_ in held]), np.stack([number for _, number, _ in held]))
            for masks, (_, _, into) in zip(drawn, held, strict=True):
                into.append(masks.astype(np.uint8))
            held.clear()

    def _ready(self, waiting: collections.deque) -> Iterator[tuple]:
        while waiting and len(waiting[0][1]) == len(waiting[0][0][2].crops):
            prepared, drawn = waiting.popleft()
            yield prepared, drawn

    def write(self, case, volume, plan, settings, raters, drawn: list[np.ndarray]) -> None:
        """Writes the folder of a case, whole or not at all."""
        from ambdiff import modes
        from ambdiff.prediction import output as predict_output
        from ambdiff.prediction import page as page

        data = self.model.config.data
        samples = plan.merge(iter(drawn), self.flags.num_samples, data.num_classes)
        spacing = volume.spacing[1:]
        found = modes.find(samples)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=predict_output.PARTIAL, dir=self.output))
        try:
            partial.chmod(0o755)
            files = predict_output.write_masks(partial, volume, samples, data.num_classes)
            summary = predict_output.summarize(samples, found, spacing)
            if len(plan.boxes) > 1:
                summary['points'] = self._points(plan, samples, spacing, settings['at'])
            if volume.files:
                words = [mode['words'] for mode in summary['modes']]
                about = {'name': case.name, 'version': ambdiff.__version__, **settings}
                try:
                    path = partial / 'segmentation.dcm'
                    predict_output.write_segmentation(path, volume, samples, found, words, about)
                    files.append(path.name)
                except UserError as error:
                    plan.notes.append(str(error))
                    self.say(f'ambdiff: {case.source}: {error}')
            summary = {
                'format': predict_output.FORMAT,
                'case': case.name,
                'input': case.source,
                'num_samples': self.flags.num_samples,
                'num_steps': self.flags.num_steps,
                'seed': self.flags.seed,
                **summary,
                'raters': [path.name for path in case.masks],
                'shape': list(samples.shape[1:]),
                'spacing': [float(step) if np.isfinite(step) else None for step in volume.spacing],
                'weights': self.model.weights,
                'warnings': plan.notes,
                'files': files,
                'settings': settings,
            }
            page.write_case(partial, plan, samples, raters, found, spacing, summary)
            (partial / 'summary.json').write_text(json.dumps(summary, indent=2), 'utf-8')
            predict_output.replace_folder(partial, self.output / case.name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self.done[case.source] = self.output / case.name

    def _points(self, plan, samples: np.ndarray, spacing, at: list) -> list[dict]:
        """The summary of each of several points, of what is drawn in its crop."""
        from ambdiff import modes
        from ambdiff.prediction import output as predict_output

        result = []
        for point, (z, top, left, bottom, right) in zip(at, plan.boxes, strict=True):
            local = samples[:, z : z + 1, top:bottom, left:right]
            result.append({'at': point, **predict_output.summarize(local, modes.find(local), spacing)})
        return result


def predict(flags: argparse.Namespace) -> int:
    """Predicts what the flags name; returns the exit status: 0, or 2 where a case failed.

    Raises:
      UserError: a flag, the weights or the whole input cannot be used.
    """
    from ambdiff.prediction import cases as predict_cases
    from ambdiff.prediction import output as predict_output
    from ambdiff.prediction import page

    output = pathlib.Path(flags.output)
    cases, skipped = predict_cases.find_cases(pathlib.Path(flags.input), output)
    points = predict_cases.parse_points(flags.at, cases)
    cases = [case for case in cases if case.source in points]
    model = Model(flags)
    output.mkdir(parents=True, exist_ok=True)
    with predict_output.alone(output), tqdm.tqdm(total=len(cases), unit='case', desc='predicting') as bar:
        run = _Run(model, flags, output, points, lambda line: bar.write(line, file=sys.stderr))
        for line in skipped:
            run.say(f'ambdiff: {line}')
        try:
            for prepared, drawn in run.masks(cases):
                if prepared:
                    run.write(*prepared, drawn)
                bar.set_postfix_str(f'{run.crops} crops')
                bar.update()
        finally:
            folders = predict_output.all_finished(output)
            predict_output.write_table(output, folders, run.failed)
            page.write_index(output, folders, run.failed)
    print(f'{len(run.done)} of {len(cases)} cases done: {output / "index.html"}')
    if run.failed:
        return command.fail(
            f'{len(run.failed)} of {len(cases)} cases failed, named above and in {output / "predictions.csv"}'
        )
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse_flags(sys.argv[1:] if argv is None else argv)
    command.log(logging.ERROR)
    command.keep_compiled()
    try:
        return predict(flags)
    except UserError as error:
        return command.fail(error)
    except OSError as error:
        return command.fail(f'cannot read {flags.input} or write below {flags.output}: {error}')
    except KeyboardInterrupt:
        return command.interrupted('the same command goes on with the cases that are left')


if __name__ == '__main__':
    sys.exit(main())
