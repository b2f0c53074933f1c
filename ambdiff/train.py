"""Training: one jitted step over the mesh; state, checkpoints, logging, a picture now and then.

Step s is a pure function of (config.seed, s, state): its batch is dataset[s], its randomness fold_in(key, s). So the
same step gives the same loss on any number of devices and hosts, and a run that was interrupted goes on to the same
result.
"""

import logging
import pathlib
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from clu import parameter_overview

from ambdiff import optim, plan, streams
from ambdiff.data import augment, pipeline, sources
from ambdiff.evaluation import validation
from ambdiff.methods.kit.contract import Method, Weights
from ambdiff.runtime import faults, flops, hosts, sharding, warm_start
from ambdiff.runtime.checkpoint import unlike_data
from ambdiff.runtime.checkpointer import Checkpointer, sampling_item
from ambdiff.runtime.metric_writer import MetricWriter

Array = jax.Array
logger = logging.getLogger(__name__)


class TrainState(flax.struct.PyTreeNode):
    """What a run carries from step to step; `step` counts the optimiser steps done.

    `carried` is the method's state: what it carries but does not learn.
    """

    step: Array
    params: Any
    opt_state: Any
    ema: Any
    carried: Any

    @property
    def weights(self) -> Weights:
        """What masks are sampled from."""
        return Weights(self.ema, self.carried)


def create_state(config: ml_collections.ConfigDict, method: Method, optimiser, key: Array) -> TrainState:
    """The state of step 0, from the seed alone."""
    size = config.data.image_size
    batch = {'image': jnp.zeros((1, size, size, config.data.channels))}
    params, carried = method.init(jax.random.fold_in(key, streams.PARAMETERS), batch)
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimiser.init(params), ema, carried)


def make_train_step(config: ml_collections.ConfigDict, method: Method, optimiser):
    """(state, batch) -> (state, metrics), a pure function to jit.

    The batch holds image [B, H, W, C] and masks [B, M, H, W]; metrics are scalars, means over the batch.
    """
    parts = config.train.accumulation_steps

    def mean_loss(params, carried, batch, key):
        loss, terms, carried = method.loss(params, carried, batch, key)
        return loss.mean(), (jax.tree.map(jnp.mean, {'loss': loss, **terms}), carried)

    gradient = jax.grad(mean_loss, has_aux=True)

    def accumulated(params, carried, batch, key):
        # Part i takes every parts-th row: on each device the rows that it already holds.
        split = lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(parts))
        one = lambda total, x: (jax.tree.map(jnp.add, total, gradient(params, carried, *x)), None)
        zero = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype),
            jax.eval_shape(gradient, params, carried, jax.tree.map(lambda x: x[::parts], batch), key),
        )
        total, _ = jax.lax.scan(one, zero, (jax.tree.map(split, batch), keys))
        mean = lambda x: x // parts if jnp.issubdtype(x.dtype, jnp.integer) else x / parts
        return jax.tree.map(mean, total)

    def step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, loss_key = jax.random.split(key)
        batch = augment.for_training(batch, augment_key, config.data)
        compute = gradient if parts == 1 else accumulated
        grads, (metrics, carried) = compute(state.params, state.carried, batch, loss_key)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optim.update_ema(config.optim, state.ema, params, state.step)
        metrics['grad_norm'] = optax.tree.norm(grads)
        return TrainState(state.step + 1, params, opt_state, ema, carried), metrics

    return step


class _Setup:
    """What stays the same while a run starts, goes back and goes on: method, data, placement, the compiled step."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.config, train = config, config.train
        self.mesh, self.method, self.optimiser = plan.of(config)
        self.rows = pipeline.Rows(sources.open_source(config.data, 'train'), config.seed)
        logger.info('training on %s', sources.describe(self.rows.source))
        if sources.notice(config.data):
            logger.info('%s', sources.notice(config.data))
        self.validate = validation.Validation(config) if train.sample_every else None
        init = lambda key: create_state(config, self.method, self.optimiser, key)
        abstract = jax.eval_shape(init, jax.random.key(config.seed))
        self.shardings = sharding.state_shardings(self.mesh, abstract, config.mesh.fsdp)
        self.abstract = sharding.on(abstract, self.shardings)
        self._init = jax.jit(init, out_shardings=self.shardings)
        self._batch = sharding.batch_sharding(self.mesh)
        self._mine = pipeline.local_rows(self._batch, train.batch_size)
        self.step_fn = None

    def start(self) -> TrainState:
        """The state of step 0, from the seed or from config.checkpoint."""
        state = self._init(jax.random.key(self.config.seed))
        if self.config.checkpoint:
            weights = warm_start.weights(self.config, state.params, sharding.replicated(self.mesh))
            # What the weights leave out, since sampling does not need it, keeps its start.
            taken = lambda own, loaded: {name: loaded.get(name, tree) for name, tree in own.items()}
            place = jax.jit(
                lambda tree, carried: (tree, jax.tree.map(jnp.copy, tree), carried),
                out_shardings=(self.shardings.params, self.shardings.ema, self.shardings.carried),
            )
            params, ema, carried = place(taken(state.params, weights.params), taken(state.carried, weights.state))
            state = state.replace(params=params, ema=ema, carried=carried)
            logger.info('starting from the weights of %s', self.config.checkpoint)
            for line in unlike_data(self.config.checkpoint, self.config):
                logger.warning('%s', line)
        return state

    def restore(self, checkpointer: Checkpointer, step: int) -> TrainState:
        """The state of a checkpoint."""
        target = self.abstract
        saved = {'step': target.step, 'params': target.params, 'opt_state': target.opt_state}
        saved, sampled = checkpointer.restore(step, saved, sampling_item(target.weights), self.config)
        return TrainState(**saved, ema=sampled['ema'], carried=sampled.get('state', target.carried))

    def load(self, step: int) -> dict[str, Array]:
        """The batch of the step after `step` steps, each process reading its rows."""
        train = self.config.train
        first = step // train.updates_per_batch * train.batch_size
        local = pipeline.batch(self.rows, [first + row for row in self._mine])
        return jax.tree.map(self.place, local)

    def place(self, local: np.ndarray) -> Array:
        """This process's rows of an array as the part of the whole batch that they are."""
        shape = (self.config.train.batch_size, *local.shape[1:])
        return jax.make_array_from_process_local_data(self._batch, local, shape)

    def asked(self, termination: faults.Termination) -> Array:
        """Whether a SIGTERM came to this process, for its rows: the step tells all processes."""
        return self.place(np.full(len(self._mine), termination.asked))

    def compile(self, state: TrainState) -> None:
        """Compiles the step (once) and says what it takes."""
        if self.step_fn is not None:
            return
        one = make_train_step(self.config, self.method, self.optimiser)
        arguments = (state, self.load(int(state.step)))
        if jax.process_count() > 1:
            arguments = (*arguments, self.asked(faults.Termination()))

        def step(state, batch, *asked):
            state, metrics = one(state, batch)
            return state, metrics | ({'stop': asked[0].any()} if asked else {})

        shardings = (self.shardings, sharding.replicated(self.mesh))
        logger.info('compiling the training step for %s ...', flops.devices(self.mesh))
        began = time.perf_counter()
        self.step_fn = jax.jit(step, donate_argnums=0, out_shardings=shardings).lower(*arguments).compile()
        logger.info('compiled in %.0f s', time.perf_counter() - began)
        hosts.barrier('compiled')
        kinds = {'parameters': state.params, 'EMA': state.ema, 'optimiser': state.opt_state}
        kinds |= {'state': state.carried} if jax.tree.leaves(state.carried) else {}
        held = {name: sharding.bytes_per_device(tree) for name, tree in kinds.items()}
        logger.info('%s', flops.summary(self.step_fn, held, self.config.train.accumulation_steps))


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Trains to config.train.num_steps, or from where the workdir's newest good checkpoint stands.

    Returns:
      True when the last step is done; False when a SIGTERM stopped it before (its state is saved).

    Raises:
      UserError: a field does not suit, the data is faulty, or the loss stays bad however often the run goes back.
    """
    with faults.Termination() as termination:
        run = _Setup(config)
        if hosts.is_main():
            workdir.mkdir(parents=True, exist_ok=True)
        hosts.barrier('the workdir is there')
        with faults.only_run(workdir), Checkpointer(workdir, config.train.keep_checkpoints) as checkpointer:
            rollbacks = faults.Rollbacks(config.train)
            rollbacks.know_data(run.rows.source, config.data)
            step = checkpointer.tidy()
            while True:
                state = run.start() if step is None else run.restore(checkpointer, step)
                rollbacks.restore({} if step is None else checkpointer.record(step))
                checkpointer.forget_after(step or 0)
                logger.info(
                    'going on from step %d of %s' if step is not None else 'starting at step %d in %s',
                    step or 0,
                    workdir,
                )
                if int(state.step) >= config.train.num_steps:
                    return True
                if run.step_fn is None:
                    overview = parameter_overview.get_parameter_overview(
                        run.abstract.params, include_stats=False, max_lines=8
                    )
                    logger.info('\n%s', overview)
                    run.compile(state)
                try:
                    with MetricWriter(workdir, int(state.step)) as writer:
                        return _loop(run, state, checkpointer, writer, rollbacks, termination)
                except faults.BadStep as bad:
                    del state  # its arrays were given away
                    step = rollbacks.go_back(bad, checkpointer.steps)
                    logger.warning(
                        '%s: back to step %d; batches %s are skipped (rollback %d of at most %d)',
                        bad,
                        step or 0,
                        ', '.join(map(str, sorted(rollbacks.skipped))),
                        rollbacks.count,
                        config.train.max_rollbacks,
                    )


def _loop(run: _Setup, state, checkpointer, writer, rollbacks, termination) -> bool:
    """Steps until the last one or a SIGTERM; raises faults.BadStep."""
    config, train = run.config, run.config.train
    start, alone = int(state.step), jax.process_count() == 1
    termination.begin()
    speed = flops.Meter(flops.of(run.step_fn) * train.accumulation_steps, train.batch_size)
    rate = optim.learning_rate(config.optim, train.num_steps)
    window: list[dict[str, float]] = []
    pending, told = None, False

    def read_pending():
        nonlocal pending, told
        if pending is not None:
            (metrics, step), pending = pending, None
            values = {name: float(value) for name, value in metrics.items()}
            told = bool(values.pop('stop', 0.0)) or told
            rollbacks.check(step, values)
            window.append(values)

    load = lambda step: None if rollbacks.skips(step) else run.load(step)
    batches = pipeline.prefetch(load, start, train.num_steps)
    for step, batch in enumerate(batches, start + 1):
        metrics = None
        if batch is None:
            state = state.replace(step=state.step + 1)
        elif alone:
            state, metrics = run.step_fn(state, batch)
        else:
            state, metrics = run.step_fn(state, batch, run.asked(termination))
        # The metrics of the step before are read while this one runs.
        read_pending()
        pending = metrics and (metrics, step)
        last = step == train.num_steps
        at = lambda every, step=step, last=last: every > 0 and (step % every == 0 or last)
        stop = termination.asked if alone else told
        if last or stop or at(train.log_every) or at(train.checkpoint_every) or at(train.sample_every):
            read_pending()
        if at(train.log_every) and window:
            values = {n: float(np.mean([w[n] for w in window])) for n in window[0]}
            window.clear()
            values |= {'learning_rate': float(rate(step - 1)), **speed.read(step - start)}
            values |= {'rollbacks': rollbacks.count} if rollbacks.count else {}
            values |= {'corrupt_records': len(run.rows.corrupt)} if run.rows.corrupt else {}
            writer.scalars(step, values)
            logger.info('%s', speed.line(step, train.num_steps, values))
        with speed.paused():
            if at(train.sample_every):
                values, picture = run.validate(state.weights)
                if hosts.is_main():
                    writer.scalars(step, values)
                    path = writer.picture(step, picture)
                    shown = ', '.join(f'{n.split("/")[1]} {v:.3f}' for n, v in values.items())
                    logger.info('step %d: %s; pictures in %s', step, shown, path)
            if last or stop or at(train.checkpoint_every):
                kept = {'step': state.step, 'params': state.params, 'opt_state': state.opt_state}
                checkpointer.save(step, kept, sampling_item(state.weights), config, rollbacks.record())
        if stop:
            checkpointer.wait()
            logger.info('stopped by SIGTERM at step %d: it is saved, and the same command goes on from there', step)
            return False
    return not hosts.any_of(termination.asked)


if __name__ == '__main__':
    from ambdiff import command

    command.elsewhere('train', 'type ambdiff train CONFIG, or python -m ambdiff.main --config=FILE --mode=train')
