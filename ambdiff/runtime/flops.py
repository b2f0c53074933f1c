"""Speed of a run: images a second, FLOPs, and the share of a known device's peak (MFU)."""

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator

import jax
from jax.extend import core

# Dense bf16 peak of one chip, FLOP/s. NVIDIA: data sheets of H200, H100 (SXM), A100 and L4, without sparsity; TPU:
# cloud.google.com/tpu/docs, "System architecture" of each version.
_PEAK = {
    'H200': 989e12,
    'H100': 989e12,
    'A100': 312e12,
    'L4': 121e12,
    'TPU v6 lite': 918e12,
    'TPU v5p': 459e12,
    'TPU v5': 459e12,
    'TPU v5 lite': 197e12,
    'TPU v4': 275e12,
}
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}
_COLLECTIVE = re.compile(r' = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(')


def of(compiled: jax.stages.Compiled) -> float:
    """FLOPs of one call by the compiler's count, over all devices; 0 where it does not say.

    A loop's body is counted once.
    """
    cost = compiled.cost_analysis() or {}
    return float(cost.get('flops', 0.0)) * jax.device_count()


def of_function(function: Callable, *arguments) -> float:
    """FLOPs of one call by the compiler's count, a loop's body counted as often as it runs; nothing is compiled.

    XLA counts the body of a loop once. So each `scan` (`lax.map` and `fori_loop` of known bounds are scans) is counted
    by itself and put in the place of what XLA made of it, whatever it stands in. Of a `while` nobody knows how often it
    runs: once, as XLA says. Of a `cond` the most expensive branch counts. Elementwise operations count one for each
    element, transcendental ones (exp, tanh) none, a product of matrices or a convolution two for each multiplication.

    Args:
      function: a pure function of JAX, jitted or not.
      arguments: arrays, or jax.ShapeDtypeStruct, in any trees.
    """
    return _count(jax.make_jaxpr(function)(*arguments))


def _count(program: core.ClosedJaxpr) -> float:
    """`of_function` of a traced program."""
    total = _counted_once(program)
    for equation in program.jaxpr.eqns:
        inner = list(_programs(equation.params))
        if equation.primitive.name == 'scan':
            length, unrolled = (equation.params[name] for name in ('length', 'unroll'))
            seen = length if unrolled >= length else unrolled + length % unrolled
            total += length * _count(inner[0]) - seen * _counted_once(inner[0])
        elif any(map(_has_loop, inner)):
            over = max if equation.primitive.name == 'cond' else sum
            total += over(map(_count, inner)) - over(map(_counted_once, inner))
    return total


def _counted_once(program: core.ClosedJaxpr) -> float:
    """XLA's own count of a program, with loops once."""
    arguments = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.in_avals]
    cost = jax.jit(core.jaxpr_as_fun(program)).lower(*arguments).cost_analysis() or {}
    return float(cost.get('flops', 0.0))


def _programs(parameters: dict) -> Iterator[core.ClosedJaxpr]:
    """The programs that an operation runs: a loop's body, a conditional's branches, what is jitted or recomputed."""
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                yield one
            elif isinstance(one, core.Jaxpr):
                yield core.ClosedJaxpr(one, ())


def _has_loop(program: core.ClosedJaxpr) -> bool:
    equations = program.jaxpr.eqns
    return any(e.primitive.name == 'scan' or any(map(_has_loop, _programs(e.params))) for e in equations)


def communicated(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes that come out of each kind of collective in one call, on one device, read from the compiled program.

    A loop's body is counted once.
    """
    total: dict[str, int] = {}
    for shapes, kind in _COLLECTIVE.findall(compiled.as_text()):
        for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', shapes):
            size = math.prod(int(n) for n in shape.split(',') if n) * _BYTES.get(dtype, 0)
            total[kind] = total.get(kind, 0) + size
    return total


def devices(mesh: jax.sharding.Mesh) -> str:
    """The mesh in words: '8 x TPU v4 (data 8, model 1), 2 processes'."""
    axes = ', '.join(f'{name} {size}' for name, size in mesh.shape.items())
    processes = f', {jax.process_count()} processes' if jax.process_count() > 1 else ''
    return f'{mesh.size} x {mesh.devices.flat[0].device_kind} ({axes}){processes}'


def summary(compiled: jax.stages.Compiled, held: dict[str, int], loops: int) -> str:
    """What a training step takes, in two lines.

    Args:
      compiled: the step.
      held: bytes a device of each kind of state.
      loops: times that its loop's body runs (accumulation).
    """
    memory = compiled.memory_analysis()
    shown = dict(held)
    if memory is not None:
        shown['activations and temporaries'] = memory.temp_size_in_bytes
    mib = lambda size: f'{size / 2**20:.1f} MiB'
    state = ', '.join(f'{name} {mib(size)}' for name, size in shown.items())
    moved = ', '.join(f'{kind} {mib(size)}' for kind, size in communicated(compiled).items()) or 'none'
    return (
        f'on each device: {state}\na step: {of(compiled) * loops / 1e9:.4g} GFLOP; collectives on each device: {moved}'
    )


def peak() -> float:
    """Peak FLOP/s of all devices together, 0 where the device is not known (a CPU)."""
    kind = jax.devices()[0].device_kind
    names = sorted((name for name in _PEAK if re.search(rf'\b{name}\b', kind)), key=len)
    return _PEAK[names[-1]] * jax.device_count() if names else 0.0


class Meter:
    """Time per step since the last reading, without the pauses."""

    def __init__(self, flops_per_step: float, images_per_step: int):
        self._flops, self._images = flops_per_step, images_per_step
        self._began, self._pause, self._steps = time.perf_counter(), 0.0, 0
        self._seconds_per_step = 0.0

    @contextlib.contextmanager
    def paused(self):
        """Time in here is not the training step's."""
        began = time.perf_counter()
        yield
        self._pause += time.perf_counter() - began

    def read(self, steps_done: int) -> dict[str, float]:
        """images_per_second, teraflops (achieved) and, on a known device, mfu, since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._began - self._pause, 1e-9) / max(steps_done - self._steps, 1)
        self._began, self._pause, self._steps = now, 0.0, steps_done
        self._seconds_per_step = seconds
        values = {
            'images_per_second': self._images / seconds,
            'teraflops': self._flops / seconds / 1e12,
        }
        if peak():
            values['mfu'] = self._flops / seconds / peak()
        return values

    def line(self, step: int, num_steps: int, values: dict[str, float]) -> str:
        """The progress line of a step."""
        left = self._seconds_per_step * (num_steps - step)
        hours, minutes = divmod(int(left // 60), 60)
        shown = [f'step {step}/{num_steps}', f'loss {values["loss"]:.4f}']
        shown += [f'{values["images_per_second"]:.0f} images/s', f'{values["teraflops"]:.3g} TFLOP/s']
        if 'mfu' in values:
            shown.append(f'MFU {values["mfu"]:.0%}')
        return ', '.join([*shown, f'{hours} h {minutes:02d} min left'])
