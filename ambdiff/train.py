"""Training: one jitted step over the mesh; state, checkpoints, logging, a picture now and then.

Step s is a pure function of (config.seed, s, state): its batch is dataset[s], its randomness fold_in(key, s). So the
same step gives the same loss on any number of devices, and a run that was interrupted goes on to the same result.
"""

import contextlib
import fcntl
import logging
import pathlib
import signal
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from clu import parameter_overview

from ambdiff import evaluate, flops, methods, optim, report, sharding
from ambdiff import metrics as metrics_lib
from ambdiff.checkpoint import Checkpointer, load_weights
from ambdiff.data import augment, pipeline, sources
from ambdiff.errors import UserError
from ambdiff.metric_writer import MetricWriter

Array = jax.Array
logger = logging.getLogger(__name__)


class TrainState(flax.struct.PyTreeNode):
    """What a run carries from step to step; `step` counts the optimiser steps done."""

    step: Array
    params: Any
    opt_state: Any
    ema: Any


def create_state(config: ml_collections.ConfigDict, method, optimiser, key: Array) -> TrainState:
    """The state of step 0, from the seed alone."""
    size = config.data.image_size
    batch = {'image': jnp.zeros((1, size, size, config.data.channels))}
    # A key of its own: those of fold_in(key, step) are the steps'.
    params = method.init(jax.random.fold_in(key, 2**31 - 3), batch)
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), ema)


def make_train_step(config: ml_collections.ConfigDict, method, optimiser):
    """(state, batch) -> (state, metrics), a pure function to jit.

    The batch holds image [B, H, W, C] and masks [B, M, H, W]; metrics are scalars, means over the batch.
    """
    parts = config.train.accumulation_steps

    def mean_loss(params, batch, key):
        loss, terms = method.loss(params, batch, key)
        return loss.mean(), jax.tree.map(jnp.mean, {'loss': loss, **terms})

    gradient = jax.grad(mean_loss, has_aux=True)

    def accumulated(params, batch, key):
        # Part i takes every parts-th row: on each device the rows that it already holds.
        split = lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(parts))
        one = lambda total, x: (jax.tree.map(jnp.add, total, gradient(params, *x)), None)
        zero = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype),
            jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[::parts], batch), key),
        )
        total, _ = jax.lax.scan(one, zero, (jax.tree.map(split, batch), keys))
        return jax.tree.map(lambda x: x / parts, total)

    def step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, loss_key = jax.random.split(key)
        if config.data.augment:
            change = augment.mirror if config.data.upright else augment.flips_and_turns
            batch = change(batch, augment_key)
        compute = gradient if parts == 1 else accumulated
        grads, metrics = compute(state.params, batch, loss_key)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optim.update_ema(config.optim, state.ema, params, state.step)
        metrics['grad_norm'] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step


class _Termination:
    """Notes SIGTERM while it is entered, so that the loop can save before it stops."""

    def __init__(self):
        self.asked = False
        self._previous = None

    def __enter__(self):
        with contextlib.suppress(ValueError):  # not in the main thread (a notebook, a test)
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, *_):
        self.asked = True


@contextlib.contextmanager
def _only_run(workdir: pathlib.Path):
    """Holds the workdir: a second run in it would mix its files with the first one's."""
    with open(workdir / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f'another run is writing to {workdir}: wait for it, or give another --workdir') from None
        yield


class _Validation:
    """A few held-out images: masks drawn from the EMA, their metrics, and a picture of them."""

    def __init__(self, config, method, mesh):
        try:
            source = sources.open_source(config.data, 'validation')
        except UserError as error:
            raise UserError(f'{error}; to train without validation: --config.train.sample_every=0') from error
        chosen = evaluate.evenly_spaced(len(source), config.train.sample_images)
        self._cases = evaluate.load(source, chosen)
        self._num_classes = config.data.num_classes
        self._key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 2)
        self._draw = evaluate.Drawer(config, method, mesh)

    def __call__(self, ema) -> tuple[dict[str, float], bytes]:
        cases = self._cases
        samples = self._draw(ema, cases.images, self._key)
        values, _ = metrics_lib.per_class(cases.raters, samples, self._num_classes, cases.present)
        means, _ = metrics_lib.summarize(values)
        names = ('ged', 'hm_iou', 'd_max', 'ci')
        values = {f'validation/{name}': means[name] for name in names}
        values['validation/empty_share'] = float((~samples.any((2, 3))).mean())
        return values, report.sample_grid(cases.images[:8], cases.raters[:8] > 0, samples[:8] > 0)


def _checked(metrics: dict, step: int, latest: int | None) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(values['loss']) or not np.isfinite(values['grad_norm']):
        kept = 'no checkpoint was saved yet' if latest is None else f'step {latest} is kept'
        raise UserError(
            f'loss or gradient is not finite at step {step} (loss {values["loss"]}); {kept}: lower '
            'config.optim.learning_rate, or set config.optim.clip_norm, and start again'
        )
    return values


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Trains to config.train.num_steps, or from where the workdir's last checkpoint stands.

    Returns:
      True when the last step is done; False when a SIGTERM stopped it before (its state is saved).

    Raises:
      UserError: a field does not suit, the data is faulty, or the loss is not finite.
    """
    mesh = sharding.create_mesh(config.mesh)
    sharding.check_batch(mesh, config.train.batch_size, 'config.train.batch_size')
    parts = config.train.accumulation_steps
    if parts < 1 or config.train.batch_size % (parts * mesh.shape['data']):
        raise UserError(
            f'config.train.batch_size={config.train.batch_size} does not divide into '
            f'config.train.accumulation_steps={parts} parts over {mesh.shape["data"]} devices'
        )
    method = methods.create(config)
    optimiser = optim.create(config.optim, config.train.num_steps)
    source = sources.open_source(config.data, 'train')
    logger.info('training on %s', sources.describe(source))
    if sources.notice(config.data):
        logger.info('%s', sources.notice(config.data))
    batches = pipeline.shuffled(source, config.seed)
    validate = _Validation(config, method, mesh) if config.train.sample_every else None

    workdir.mkdir(parents=True, exist_ok=True)
    replicated = sharding.replicated(mesh)
    key = jax.random.key(config.seed)
    abstract = jax.eval_shape(lambda k: create_state(config, method, optimiser, k), key)
    with _only_run(workdir), Checkpointer(workdir, config.train.keep_checkpoints) as checkpointer:
        latest = checkpointer.latest_step
        if latest is None:
            init = jax.jit(lambda k: create_state(config, method, optimiser, k), out_shardings=replicated)
            state = init(key)
            if config.checkpoint:
                weights, _ = load_weights(config.checkpoint, config, replicated)
                params = {name: weights.get(name, tree) for name, tree in state.params.items()}
                state = state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
                logger.info('starting from the weights of %s', config.checkpoint)
        else:
            target = _on(abstract, replicated)
            saved = {'step': target.step, 'params': target.params, 'opt_state': target.opt_state}
            saved, ema = checkpointer.restore(latest, saved, {'ema': target.ema}, config)
            state = TrainState(**saved, **ema)
            logger.info('going on from step %d of %s', latest, workdir)
        if int(state.step) >= config.train.num_steps:
            return True
        logger.info('\n%s', parameter_overview.get_parameter_overview(state.params, max_lines=8))
        with MetricWriter(workdir, int(state.step)) as writer, _Termination() as termination:
            return _loop(config, state, batches, mesh, method, optimiser, checkpointer, writer, validate, termination)


def _on(tree, device_sharding):
    """The abstract tree with a sharding on every leaf."""
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device_sharding)
    return jax.tree.map(place, tree)


def _loop(config, state, batches, mesh, method, optimiser, checkpointer, writer, validate, termination) -> bool:
    train, repeat = config.train, config.train.updates_per_batch
    batch_sharding = sharding.batch_sharding(mesh)
    rows = pipeline.local_rows(train.batch_size)

    def load(step: int):
        first = step // repeat * train.batch_size
        local = pipeline.batch(batches, range(first + rows.start, first + rows.stop))
        place = lambda x: jax.make_array_from_process_local_data(batch_sharding, x)
        return jax.tree.map(place, local)

    start = int(state.step)
    step_fn = jax.jit(make_train_step(config, method, optimiser), donate_argnums=0)
    logger.info('compiling the training step for %s ...', dict(mesh.shape))
    began = time.perf_counter()
    step_fn = step_fn.lower(state, load(start)).compile()
    logger.info('compiled in %.0f s', time.perf_counter() - began)
    speed = flops.Meter(flops.of(step_fn) * train.accumulation_steps, train.batch_size)
    rate = optim.learning_rate(config.optim, train.num_steps)
    window: list[dict[str, float]] = []
    pending = None
    saved = checkpointer.latest_step

    def save(step):
        kept = {'step': state.step, 'params': state.params, 'opt_state': state.opt_state}
        checkpointer.save(step, kept, {'ema': state.ema}, config)
        return step

    for step, batch in enumerate(pipeline.prefetch(load, start, train.num_steps), start + 1):
        state, metrics = step_fn(state, batch)
        # The metrics of the step before are read while this one runs.
        if pending is not None:
            window.append(_checked(*pending, saved))
        pending = (metrics, step)
        last = step == train.num_steps
        at = lambda every, step=step, last=last: every > 0 and (step % every == 0 or last)
        stop = termination.asked
        if last or stop or at(train.log_every) or at(train.checkpoint_every) or at(train.sample_every):
            window.append(_checked(*pending, saved))
            pending = None
        if at(train.log_every):
            values = {n: float(np.mean([w[n] for w in window])) for n in window[0]}
            window.clear()
            values |= {'learning_rate': float(rate(step - 1)), **speed.read(step - start)}
            writer.scalars(step, values)
            logger.info('%s', speed.line(step, train.num_steps, values))
        with speed.paused():
            if at(train.sample_every):
                values, picture = validate(state.ema)
                writer.scalars(step, values)
                path = writer.picture(step, picture)
                shown = ', '.join(f'{n.split("/")[1]} {v:.3f}' for n, v in values.items())
                logger.info('step %d: %s; pictures in %s', step, shown, path)
            if last or stop or at(train.checkpoint_every):
                saved = save(step)
        if stop:
            logger.info('stopped by SIGTERM at step %d: the same command goes on from there', step)
            return False
    return True
