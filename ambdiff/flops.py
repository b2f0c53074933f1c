"""Speed of a run: images a second, FLOPs, and the share of a known device's peak (MFU)."""

import contextlib
import re
import time

import jax

# Dense bf16 peak of one chip, FLOP/s, from the vendors' data sheets.
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


def of(compiled: jax.stages.Compiled) -> float:
    """FLOPs of one call by the compiler's count, over all devices; 0 where it does not say.

    A loop's body is counted once.
    """
    cost = compiled.cost_analysis() or {}
    return float(cost.get('flops', 0.0)) * jax.device_count()


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
