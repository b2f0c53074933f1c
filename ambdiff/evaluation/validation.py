"""What a run looks at while it trains: samples of a few held-out images."""

import jax
import ml_collections
import numpy as np

from ambdiff import methods, metrics, sampling, streams
from ambdiff.data import sources
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.evaluation import report
from ambdiff.methods.kit.contract import Weights
from ambdiff.runtime import hosts, sharding


class Validation:
    """A few held-out images: samples from the EMA, their metrics, and a picture of them.

    Raises:
      UserError: there is no such split.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        try:
            source = sources.open_source(config.data, 'validation')
        except UserError as error:
            raise UserError(f'{error}; to train without validation: --config.train.sample_every=0') from error
        chosen = np.array(cases_lib.evenly_spaced(len(source), config.train.sample_images))
        self._rows, self._total = hosts.shard(len(chosen)), len(chosen)
        self._cases = cases_lib.load(source, chosen[self._rows])
        self._num_classes, self._neighbours = config.data.num_classes, config.data.neighbours
        self._key = jax.random.fold_in(jax.random.key(config.seed), streams.VALIDATION)
        self._mesh = sharding.local_mesh()
        self._sampler = sampling.Sampler(config, methods.create(config), self._mesh)

    def __call__(self, weights: Weights) -> tuple[dict[str, float], bytes]:
        """Metrics and picture, on the main process; all processes call it together."""
        samples = self._sampler(
            sharding.local_copy(weights, self._mesh), self._cases.images, sampling.image_keys(self._key, self._rows)
        )
        cases, samples = cases_lib.gather(cases_lib.shown(self._cases, self._neighbours), samples, self._total)
        if not hosts.is_main():
            return {}, b''
        scores, _ = metrics.per_class(cases.raters, samples, self._num_classes, self._sampler.draws, cases.present)
        means, _ = metrics.summarize(scores)
        names = ('ged', 'hm_iou', 'd_max', 'ci')
        values = {f'validation/{name}': means[name] for name in names}
        values['validation/empty_share'] = float((~samples.any((2, 3))).mean())
        return values, report.sample_grid(cases.images[:8], cases.raters[:8] > 0, samples[:8] > 0)
