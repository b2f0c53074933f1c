"""What a method takes: parameters, FLOPs and time, by its config alone; and what a run said while it trained.

FLOPs are the compiler's count with loops as often as they run (`ambdiff.runtime.flops.of_function`): of an image, all N
masks together, since methods share work among them; of a mask, an N-th of that.
"""

import dataclasses
import json
import math
import pathlib

import jax
import ml_collections
import numpy as np

from ambdiff import methods, optim, train
from ambdiff.league import budget
from ambdiff.runtime import flops

_LOOKS = 'validation/'


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a method takes.

    Attributes:
      parameters: numbers learned.
      sampling_parameters: those that sampling reads.
      network_evaluations: a mask.
      image_flops: of all N masks of an image.
      mask_flops: an N-th of that.
      step_flops: of one training step.
      images: seen in the whole training.
      training_flops: of the whole training.
    """

    parameters: int
    sampling_parameters: int
    network_evaluations: float
    image_flops: float
    mask_flops: float
    step_flops: float
    images: int
    training_flops: float


def of(config: ml_collections.ConfigDict) -> Costs:
    """The costs of the method of a config; nothing is compiled or trained."""
    method = methods.create(config)
    optimiser = optim.create(config.optim, config.train.num_steps)
    state = jax.eval_shape(lambda: train.create_state(config, method, optimiser, jax.random.key(0)))
    size, number = config.data.image_size, config.sample.num_samples
    images = lambda count: jax.ShapeDtypeStruct((count, size, size, config.data.channels), np.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    sample = lambda weights, images, keys: method.sample(*weights, images, keys, number)
    image_flops = flops.of_function(sample, state.weights, images(1), keys)
    count, masks = config.train.batch_size, config.data.num_raters
    batch = {
        'image': images(count),
        'masks': jax.ShapeDtypeStruct((count, masks, size, size), np.uint8),
        'present': jax.ShapeDtypeStruct((count, masks), bool),
    }
    step_flops = flops.of_function(train.make_train_step(config, method, optimiser), state, batch)
    numbers = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    return Costs(
        parameters=numbers(state.params),
        sampling_parameters=numbers(method.for_sampling(state.params)),
        network_evaluations=float(method.evaluations),
        image_flops=image_flops,
        mask_flops=image_flops / number,
        step_flops=step_flops,
        images=budget.images_seen(config),
        training_flops=step_flops * config.train.num_steps,
    )


@dataclasses.dataclass(frozen=True)
class History:
    """What a run said while it trained.

    Attributes:
      seconds: of its training steps, compiling, checkpoints and looks at validation left out.
      step_seconds: of one step, its first words left out; NaN where it said too little.
      looks: at validation, in their order: {'step': .., 'ged': .., 'hm_iou': ..}.
    """

    seconds: float
    step_seconds: float
    looks: list[dict[str, float]]


def history(folder: pathlib.Path, batch_size: int) -> History:
    """What <workdir>/metrics.jsonl of a run says; lines that are cut short are left out."""
    seconds, each, looks, last = 0.0, [], [], 0
    path = folder / 'metrics.jsonl'
    for line in path.read_text('utf-8').splitlines() if path.is_file() else []:
        try:
            said = json.loads(line)
            step = int(said['step'])
        except (ValueError, TypeError, KeyError):
            continue
        if said.get('images_per_second', 0) > 0:
            each.append(batch_size / said['images_per_second'])
            seconds += each[-1] * (step - last)
            last = step
        found = {name.removeprefix(_LOOKS): value for name, value in said.items() if name.startswith(_LOOKS)}
        if found:
            looks.append({'step': step, **found})
    return History(seconds, float(np.median(each[1:])) if each[1:] else math.nan, looks)
