"""What the sampler's choices do to quality: GED_N and HM-IoU over steps, eta and the kind of starts.

  python benchmarks/sampler_quality.py --config=configs/lidc.py:small_cimd --config.data.path=data_lidc.hdf5 \
      --config.checkpoint=runs/lidc_small_cimd --config.evaluate.split=validation [--steps=4,8,16] [--etas=0,1]

Every row samples config.sample.num_samples masks an image from the same weights and seed; +- is the standard error,
clustered by patient where patients are known. `difference` is GED less the first row's, image by image, whose error is
far smaller than that of either.
"""

import itertools

import jax
import numpy as np
from absl import app, flags

from ambdiff import command, methods, metrics, sampling
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.runtime import sharding
from ambdiff.runtime.checkpoint import load_weights

command.define_config()
_STEPS = flags.DEFINE_list('steps', ['4', '8', '16'], 'Network evaluations a mask.')
_ETAS = flags.DEFINE_list('etas', ['0', '1'], 'DDIM eta.')
_NOISE = flags.DEFINE_list('noise', ['independent', 'stratified'], 'Starts of the masks of an image.')


def compare(config):
    mesh = sharding.create_mesh(config.mesh)
    source = sources.open_source(config.data, config.evaluate.split)
    cases = cases_lib.load(source, cases_lib.evenly_spaced(len(source), config.evaluate.max_images))
    key = jax.random.key(config.seed)
    where = sharding.replicated(mesh)
    weights, step = load_weights(config.checkpoint, config, where)
    print(
        f'{config.checkpoint}, step {step}, {config.evaluate.split}: {len(cases.names)} images, '
        f"N = {config.sample.num_samples}, seed {config.seed}, {cases.empty_share():.1%} of the raters' masks empty"
    )
    first = None
    for steps, eta, noise in itertools.product(_STEPS.value, _ETAS.value, _NOISE.value):
        config.sample.num_steps, config.sample.eta, config.sample.noise = int(steps), float(eta), noise
        sampler = sampling.Sampler(config, methods.create(config), mesh)
        samples = sampler(weights, cases.images, sampling.image_keys(key, range(len(cases.names))))
        values = metrics.per_class(cases.raters, samples, config.data.num_classes, sampler.draws, cases.present)[0]
        ged = np.asarray(values['ged'])
        first = ged if first is None else first
        values['difference'] = ged - first
        means, errors = metrics.summarize(values, cases.patients if any(cases.patients) else None)
        names = ('ged', 'ged_excess', 'emptiness_error', 'hm_iou', 'difference')
        shown = ' '.join(f'{n} {means[n]:.4f} +- {errors[n]:.4f}' for n in names)
        share = np.mean(~samples.any((2, 3)))
        print(f'steps {steps:>4} eta {eta:>4} {noise:12} {shown} empty {share:.1%}', flush=True)


def run(argv):
    del argv
    try:
        compare(flags.FLAGS.config)
    except UserError as error:
        return command.fail(error)
    return 0


if __name__ == '__main__':
    app.run(run, flags_parser=command.parse_flags)
