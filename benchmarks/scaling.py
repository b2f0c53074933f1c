"""The tables of docs/scaling.md: what a training step and a mask cost, and what that predicts for many chips.

  python benchmarks/scaling.py             prints every table, from benchmarks/scaling.json and published rates
  python benchmarks/scaling.py --write     puts them between the page's markers
  python benchmarks/scaling.py --measure   measures the pieces anew into benchmarks/scaling.json: minutes on a CPU; the
                                           networks are traced, never run

Measured, for one image more in the batch and for the batch-independent rest (from batches of 1 and 2):
  flops      of the training step and of one network evaluation, XLA's count before optimisation
  bytes      moved to and from memory if everything elementwise is fused: operands and results of convolutions and
             matrix products, operands of reductions. A compiler that fuses less moves more.
  residuals  bytes that the backward pass keeps of the forward pass, without rematerialisation
"""

import argparse
import dataclasses
import json
import math
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent
STORE = FOLDER / 'scaling.json'
PAGE = FOLDER.parent / 'docs' / 'scaling.md'
CONFIGS = ('configs/lidc.py', 'configs/lidc.py:pod', 'configs/lidc.py:small_cimd')

# Achievable share of a published rate. The first two were seen on an H200 in bfloat16 (780 of 989 TFLOP/s in matrix
# products, 4.3 of 4.8 TB/s copied) and are assumed of every chip; convolutions may reach less. The third is assumed.
COMPUTE_SHARE, MEMORY_SHARE, LINK_SHARE = 0.79, 0.90, 0.80

FLOAT = 4  # parameters, gradients, optimiser state and EMA are float32
STATE_COPIES = 4  # parameters, AdamW's two moments, EMA; kept between steps
# AdamW and EMA read parameter, gradient, two moments and EMA, and write all but the gradient.
UPDATE_BYTES = 9 * FLOAT


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published rates of one chip, bytes and FLOPs a second; `inner` and `outer` are what it can send."""

    name: str
    peak: dict  # by compute type
    hbm: float
    capacity: float
    group: int  # chips joined by the inner link: a pod, or a machine
    inner: float
    outer: float
    inner_name: str
    outer_name: str


# "Cloud TPU v5e" (Google Cloud documentation): 197 TFLOP/s bf16, 16 GB at 819 GB/s, 400 GB/s of ICI a chip in both
# directions together, 256 chips a pod, 6.4 Tbit/s of data centre network a pod. JAX's default precision on TPU rounds
# the operands of float32 products to bfloat16, so both types have one peak.
V5E = Chip('TPU v5e', {'float32': 197e12, 'bfloat16': 197e12}, 819e9, 16e9, 256, 200e9, 6.4e12 / 8 / 256, 'ICI', 'DCN')
# "NVIDIA H100 Tensor Core GPU" data sheet, SXM: 989 TFLOP/s bf16 and 494 TF32, dense; 80 GB at 3.35 TB/s; NVLink
# 900 GB/s in both directions. "NVIDIA DGX H100" data sheet: 8 GPUs and 8 InfiniBand ports of 400 Gbit/s.
H100 = Chip('H100', {'float32': 494e12, 'bfloat16': 989e12}, 3.35e12, 80e9, 8, 450e9, 50e9, 'NVLink', 'InfiniBand')


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds that one training step is predicted to take, term by term."""

    parts: int  # batches that the batch is taken in, to fit the memory
    compute: float
    memory: float
    links: float
    link: str  # the slower link of those that it crosses

    @property
    def seconds(self) -> float:
        """Nothing hides the links: from above. Compute and memory overlap fully: from below."""
        return max(self.compute, self.memory) + self.links

    @property
    def binds(self) -> str:
        """The longest term."""
        return max((self.compute, 'compute'), (self.memory, 'HBM'), (self.links, self.link))[1]


def link_bytes(params: int, chips: int, fsdp: bool) -> float:
    """Bytes that a chip sends a step, in all: an all-reduce of gradients, or two gathers and a reduce-scatter."""
    return (3 if fsdp else 2) * params * FLOAT * (chips - 1) / chips


def step(chip: Chip, pieces: dict, chips: int, fsdp: bool) -> Step:
    """The prediction for a config's whole batch on this many chips."""
    params, train = pieces['params'], pieces['train']
    images, rest = divmod(pieces['batch'], chips)
    if rest:
        raise ValueError(f'a batch of {pieces["batch"]} does not divide over {chips} chips')
    shard = chips if fsdp else 1
    kept = STATE_COPIES * FLOAT * params / shard + 2 * FLOAT * params  # and a gradient, and gathered or summed ones
    fits = int((0.9 * chip.capacity - kept) / train['residuals'][1])
    if fits < 1:
        raise ValueError(f'{chip.name} does not hold one image and the state')
    parts = next(p for p in range(math.ceil(images / fits), images + 1) if images % p == 0)
    flops = train['flops'][0] * parts + train['flops'][1] * images
    moved = train['bytes'][0] * parts + train['bytes'][1] * images + UPDATE_BYTES * params / shard
    moved += 3 * FLOAT * params * (parts - 1)  # gradients summed over parts
    if fsdp and chips > 1:
        moved += 2 * FLOAT * params  # gathered parameters are written, forward and backward
    inner = min(chips, chip.group)
    times = [(link_bytes(params, inner, fsdp) / (chip.inner * LINK_SHARE), chip.inner_name)]
    if chips > chip.group:
        # Each chip exchanges its share of the group's bytes with its like in the other groups.
        outer = link_bytes(params, chips // chip.group, fsdp) / chip.group
        times.append((outer / (chip.outer * LINK_SHARE), chip.outer_name))
    peak = chip.peak[pieces['dtype']]
    compute, memory = flops / (peak * COMPUTE_SHARE), moved / (chip.hbm * MEMORY_SHARE)
    return Step(parts, compute, memory, sum(t for t, _ in times), max(times)[1])


def mask_seconds(chip: Chip, pieces: dict, evaluations: int) -> tuple[float, str]:
    """Chip-seconds of one mask in large batches, and what binds."""
    compute = pieces['evaluation']['flops'][1] / (chip.peak[pieces['dtype']] * COMPUTE_SHARE)
    memory = pieces['evaluation']['bytes'][1] / (chip.hbm * MEMORY_SHARE)
    return evaluations * max(compute, memory), 'compute' if compute > memory else 'HBM'


def table(head: list[str], rows: list[list]) -> str:
    """Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def pieces_table(measured: dict) -> str:
    """What was measured, config by config."""
    rows = []
    for name, p in measured.items():
        train, one = p['train'], p['evaluation']
        state = STATE_COPIES * FLOAT * p['params']
        row = [f'`{name}`', p['dtype'], f'{p["params"] / 1e6:.1f} M', p['batch'], f'{state / 1e9:.3g} GB']
        row += [f'{train["flops"][1] / 1e9:.4g} GFLOP', f'{train["bytes"][1] / 1e9:.3g} GB']
        row += [f'{train["residuals"][1] / 1e9:.3g} GB', f'{one["flops"][1] / 1e9:.4g} GFLOP']
        rows.append([*row, f'{one["bytes"][1] / 1e9:.3g} GB'])
    head = ['config', 'compute type', 'parameters', 'batch', 'state', 'step: FLOPs an image', 'bytes moved an image']
    return table([*head, 'kept for backward', 'evaluation: FLOPs a mask', 'bytes moved a mask'], rows)


def fixed_table(measured: dict) -> str:
    """What a step moves and sends whatever the batch."""
    rows = []
    for name, p in measured.items():
        weights = f'{p["train"]["bytes"][0] / 1e9:.3g} GB'
        sent = [f'{link_bytes(p["params"], 8, fsdp) / 1e9:.3g} GB' for fsdp in (False, True)]
        rows.append([f'`{name}`', weights, f'{UPDATE_BYTES * p["params"] / 1e9:.3g} GB', *sent])
    head = [
        'config',
        'weights read, gradients written',
        'optimiser and EMA',
        'sent by each of 8 chips, replicated',
        'FSDP',
    ]
    return table(head, rows)


def figures(value: float) -> str:
    """Three significant figures, never as a power of ten."""
    return f'{float(f"{value:.3g}"):,.10g}'


def ms(seconds: float) -> str:
    return figures(1e3 * seconds)


def steps_table(measured: dict, name: str, counts: tuple[int, ...]) -> str:
    """Predicted steps on both chips, replicated and FSDP; efficiency is over one chip, replicated."""
    pieces, rows = measured[name], []
    for chip in (V5E, H100):
        alone = step(chip, pieces, 1, False).seconds
        for chips in counts:
            for fsdp in (False, True)[: 1 if chips == 1 else 2]:
                s = step(chip, pieces, chips, fsdp)
                row = [chip.name, chips, 'FSDP' if fsdp else 'replicated', pieces['batch'] // chips, s.parts]
                row += [ms(s.compute), ms(s.memory), ms(s.links), ms(s.seconds), s.binds]
                rows.append([*row, f'{alone / chips / s.seconds:.0%}', f'{pieces["batch"] / s.seconds:,.0f}'])
    head = ['chip', 'chips', 'parameters', 'images a chip', 'parts', 'compute ms', 'HBM ms', 'links ms', 'step ms']
    return table([*head, 'longest', 'efficiency', 'images/s'], rows)


def training_table(measured: dict) -> str:
    """A whole run of the config :pod."""
    pieces, rows = measured['configs/lidc.py:pod'], []
    for chip in (V5E, H100):
        for chips in (8, 64, 512):
            hours = step(chip, pieces, chips, False).seconds * pieces['num_steps'] / 3600
            rows.append([chip.name, chips, f'{hours:.3g}', f'{hours * chips:,.0f}'])
    return table(['chip', 'chips', 'hours', 'chip-hours'], rows)


def masks_table(measured: dict) -> str:
    """One million images, a hundred masks each."""
    rows = []
    wanted = [(name, n) for name in CONFIGS[:2] for n in (1000, 16, 8)] + [(CONFIGS[2], n) for n in (16, 8)]
    for name, evaluations in wanted:
        row = [f'`{name}`', evaluations]
        for chip in (V5E, H100):
            seconds, binds = mask_seconds(chip, measured[name], evaluations)
            row += [ms(seconds), figures(1e8 * seconds / 3600), binds]
        rows.append(row)
    head = ['network', 'evaluations a mask']
    return table(
        head + [f'{c.name}: {what}' for c in (V5E, H100) for what in ('ms a mask', 'chip-hours', 'longest')], rows
    )


def tables(measured: dict) -> dict[str, str]:
    """Every table of the page, by the name in its markers."""
    return {
        'pieces': pieces_table(measured),
        'fixed': fixed_table(measured),
        'pod': steps_table(measured, 'configs/lidc.py:pod', (1, 8, 64, 512)),
        'paper': steps_table(measured, 'configs/lidc.py', (1, 4, 28, 140)),
        'training': training_table(measured),
        'masks': masks_table(measured),
    }


def filled(page: str, new: dict[str, str]) -> str:
    """The page with the tables put between its markers <!-- name --> and <!-- /name -->."""
    for name, text in new.items():
        start, end = f'<!-- {name} -->\n', f'\n<!-- /{name} -->'
        if page.count(start) != 1 or page.count(end) != 1:
            raise ValueError(f'the page needs the markers of the table {name} once')
        before, _, rest = page.partition(start)
        page = before + start + text + end + rest.partition(end)[2]
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--measure', action='store_true', help='measure the pieces anew')
    parser.add_argument('--write', action='store_true', help='put the tables into docs/scaling.md')
    arguments = parser.parse_args()
    if arguments.measure:
        import scaling_pieces

        measured = {name: scaling_pieces.of(name) for name in CONFIGS}
        STORE.write_text(json.dumps(measured, indent=2) + '\n')
    new = tables(json.loads(STORE.read_text()))
    if arguments.write:
        PAGE.write_text(filled(PAGE.read_text(), new))
        return
    for name, text in new.items():
        print(f'{name}\n{text}\n')


if __name__ == '__main__':
    main()
