"""One fresh process that notes where its time goes: what benchmarks/start_up.py starts, again and again.

  python benchmarks/start_up_clock.py FILE predict ARGUMENTS      the command `ambdiff predict`
  python benchmarks/start_up_clock.py FILE python IMAGE WEIGHTS MASKS

FILE gets JSON: of each phase its seconds by kind, how many programs were compiled, and a digest of the masks. Spans of
time nest (a program is traced while weights are loaded): each moment counts for the span that began last.
"""

import builtins
import importlib
import itertools
import sys
import threading
import time

BEGAN = time.perf_counter()
KINDS = ('imports', 'weights', 'tracing', 'lowering', 'compiling', 'running', 'the rest')
# Of `jax.monitoring`; reading an executable from the compile cache is a part of the last.
EVENTS = {
    '/jax/core/compile/jaxpr_trace_duration': 'tracing',
    '/jax/core/compile/jaxpr_to_mlir_module_duration': 'lowering',
    '/jax/core/compile/backend_compile_duration': 'compiling',
}
# (module, class, method): kind of what is not told of by JAX.
METHODS = {
    ('ambdiff.prediction.crop_sampler', 'CropSampler', '__init__'): 'weights',
    ('ambdiff.sampling', 'Sampler', '__call__'): 'running',
}


class Clock:
    """Spans (kind, start, end) of the main thread, from when it was made."""

    def __init__(self):
        self.spans, self._depth, self._waiting = [], 0, dict(METHODS)
        self._listens = False
        plain, by_name = builtins.__import__, importlib.import_module
        builtins.__import__ = lambda *a, **k: self._import(plain, *a, **k)
        importlib.import_module = lambda *a, **k: self._import(by_name, *a, **k)

    def _import(self, plain, *arguments, **named):
        if self._depth or threading.current_thread() is not threading.main_thread():
            return plain(*arguments, **named)
        self._depth, began = 1, time.perf_counter()
        try:
            return plain(*arguments, **named)
        finally:
            self._depth = 0
            self.spans.append(('imports', began, time.perf_counter()))
            if self._waiting or not self._listens:
                self._watch()

    def _watch(self):
        """Hooks what has been imported by now."""
        if not self._listens and 'jax.monitoring' in sys.modules:
            self._listens = True
            sys.modules['jax.monitoring'].register_event_duration_secs_listener(self._hear)
        for module, owner, name in [place for place in self._waiting if place[0] in sys.modules]:
            kind = self._waiting.pop((module, owner, name))
            owner = getattr(sys.modules[module], owner)
            setattr(owner, name, self._timed(getattr(owner, name), kind))

    def _hear(self, event, seconds, **_):
        if event in EVENTS:
            now = time.perf_counter()
            self.spans.append((EVENTS[event], now - seconds, now))

    def _timed(self, method, kind):
        def timed(*arguments, **named):
            began = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self.spans.append((kind, began, time.perf_counter()))

        return timed

    def between(self, first, last):
        """{kind: seconds, 'programs': compiled ones} of this stretch of time."""
        spans = [(max(start, first), min(end, last), kind) for kind, start, end in self.spans]
        spans = [('the rest', first, last), *((kind, start, end) for start, end, kind in spans if start < end)]
        edges = sorted({edge for _, start, end in spans for edge in (start, end)})
        spans.sort(key=lambda span: span[1])
        seconds, open_, next_ = dict.fromkeys(KINDS, 0.0), [], 0
        for start, end in itertools.pairwise(edges):
            while next_ < len(spans) and spans[next_][1] <= start:
                open_.append(spans[next_])
                next_ += 1
            open_ = [span for span in open_ if span[2] > start]
            seconds[open_[-1][0]] += end - start
        return {**seconds, 'programs': sum(kind == 'compiling' for kind, *_ in spans)}


def _predict(arguments):
    from ambdiff.cli.entry import ambdiff

    try:
        ambdiff(['predict', *arguments])
    except SystemExit as ended:
        if ended.code:
            raise
    return {'ambdiff predict': (BEGAN, time.perf_counter())}, ''


def _python(image, weights, masks):
    import hashlib

    import numpy as np

    image, edges = np.load(image), [time.perf_counter()]
    import ambdiff

    edges.append(time.perf_counter())
    model = ambdiff.load(weights)
    edges.append(time.perf_counter())
    for _ in range(2):
        prediction = model.sample(image, num_samples=int(masks), seed=3, scaled=True)
        edges.append(time.perf_counter())
    names = ('import ambdiff', 'load', 'first sample', 'second sample')
    digest = hashlib.sha256(np.ascontiguousarray(prediction.masks).tobytes()).hexdigest()
    return dict(zip(names, itertools.pairwise(edges), strict=True)), digest


def main():
    import json
    import pathlib

    clock = Clock()
    file, what, *arguments = sys.argv[1:]
    phases, digest = _predict(arguments) if what == 'predict' else _python(*arguments)
    said = {name: clock.between(*span) for name, span in phases.items()}
    pathlib.Path(file).write_text(json.dumps({'phases': said, 'digest': digest}))


if __name__ == '__main__':
    main()
