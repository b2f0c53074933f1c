"""Speed of a run: images a second, FLOPs, and the share of a known device's peak (MFU)."""

import contextlib
import math
import re
import time

import jax

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
