"""What a league does, in its order: everything that can be told is told before anything trains.

  entries ─► checks ─► learning rates ─► runs: trained, evaluated ─► table, page

It is killed and goes on: what is finished stays, a run that was stopped goes on from its newest checkpoint, and the
table is made from what lies there. A run that fails is said and left out, so that the others of a night do not wait.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable, Sequence

import jax
import ml_collections

from ambdiff import evaluate, files, metrics
from ambdiff.data import fingerprint, sources
from ambdiff.errors import UserError
from ambdiff.evaluation import cases as cases_lib
from ambdiff.evaluation.comparison import paired
from ambdiff.evaluation.comparison.runs import Run as Compared
from ambdiff.evaluation.comparison.runs import open_run
from ambdiff.evaluation.files import without_nan
from ambdiff.league import budget, costs, entries, foreign, page, runs, search, table
from ambdiff.pages.charts import as_file, si
from ambdiff.text import printable

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      file: the config, FILE.py or FILE.py:VARIANT, whose variants are methods (`entries.read`).
      fields: of the config, for all: 'group.field=value'.
      workdir: where runs and table go.
      methods: who takes part, '' for all there are.
      seeds: how many of each.
      scored: 'NAME:FILE' each, masks of other programs.
      reference: the row that differences are to; '' for level_sets, or else the first.
      images: that everybody trains on; None: as the config says.
      minutes: of training that everybody gets on this machine; None: as the config says.
      factors: of each method's own learning rate, tried on validation; () for no search.
      search_images: that each trial trains on.
      train: False for a table of what is finished.
    """

    file: str
    fields: Sequence[str]
    workdir: pathlib.Path
    methods: str = ''
    seeds: str = '1'
    scored: Sequence[str] = ()
    reference: str = ''
    images: int | None = None
    minutes: float | None = None
    factors: tuple[float, ...] = ()
    search_images: int = 3000
    train: bool = True


@dataclasses.dataclass(frozen=True)
class _Field:
    """All who take part, checked."""

    request: Request
    config: ml_collections.ConfigDict  # of the first: what all have in common is in it
    entries: list[entries.Entry]
    cases: cases_lib.Cases
    described: str
    trained_on: fingerprint.Fingerprint
    rivals: list[Compared]  # foreign masks and baselines
    reference: str
    counted: dict[str, costs.Costs] = dataclasses.field(default_factory=dict)  # of entries, once they are asked for

    def costs_of(self, name: str, config: ml_collections.ConfigDict) -> costs.Costs:
        """The costs of an entry, told when they are counted."""
        if name not in self.counted:
            self.counted[name] = found = costs.of(config)
            logger.info(
                '%s: %s parameters; %sFLOP an image, %sFLOP a mask, %sFLOP a training step, %sFLOP in all',
                name,
                *map(si, (found.parameters, found.image_flops, found.mask_flops, found.step_flops)),
                si(found.training_flops),
            )
        return self.counted[name]


def league(request: Request) -> int:
    """Does all of it; returns the exit status: 2 where a run failed, and 0 also where a SIGTERM stopped it.

    Raises:
      UserError: something does not suit; one line, before anything trains.
    """
    field = _prepare(request)
    tried = _search(field)
    if tried is None:
        return 0
    planned = _planned(field)
    if planned is None:
        return 0
    for run in planned:
        runs.check_folder(run, field.trained_on)
    failed: dict[str, str] = {}
    if request.train and not _train(planned, 'run', failed, field.costs_of):
        return 0
    _write(field, planned, tried, failed)
    for name, reason in failed.items():
        logger.error('%s failed: %s', name, reason)
    return 2 if failed else 0


def _prepare(request: Request) -> _Field:
    """Reads who takes part and checks all that can be checked before training."""
    given = [foreign.named(text) for text in request.scored]
    found = entries.read(request.methods, request.seeds, request.file, request.fields)
    if request.images:
        for entry in found:
            budget.for_images(entry.config, request.images)
    names = [*(entry.name for entry in found), *(name for name, _ in given), *foreign.BASELINES]
    seeds = [f'{entry.name}-{entry.config.seed + turn}' for entry in found for turn in range(entry.seeds)]
    taken = [*names, *seeds]
    if twice := next((name for name in taken if taken.count(name) > 1), ''):
        raise UserError(f'--score: the name {printable(twice)} is taken; give the masks another one')
    reference = request.reference or next((name for name in entries.FIRST if name in names), names[0])
    if reference not in names:
        raise UserError(f'--reference={printable(reference)} does not take part; name one of {", ".join(names)}')
    ready = [runs.run(entry.name, entry.config, entry.name, request.workdir) for entry in found]
    for run in ready:
        runs.check(run)
    runs.check_alike(ready)
    if len({run.folder for run in ready}) < len(ready):
        raise UserError('--methods: two names lead to one folder; write their fields without /')
    config = found[0].config
    source = sources.open_source(config.data, config.evaluate.split)
    trained_on = fingerprint.of(sources.open_source(config.data, 'train'), config.data)
    if request.factors:
        sources.open_source(config.data, 'validation')
    chosen = cases_lib.evenly_spaced(len(source), config.evaluate.max_images)
    cases = cases_lib.load(source, chosen)
    number, classes = config.sample.num_samples, config.data.num_classes
    rivals = [foreign.read(name, path, cases, config) for name, path in given]
    rivals += foreign.of_baselines(cases, evaluate.masks_of_others(config, source), number, classes, config.seed)
    return _Field(request, config, found, cases, sources.describe(source), trained_on, rivals, reference)


def _search(field: _Field) -> dict[str, list[search.Trial]] | None:
    """Trains the trials, and sets each entry's learning rate to the best; None where a SIGTERM stopped it."""
    request, tried = field.request, {}
    if not request.factors:
        return tried
    for entry in field.entries:
        tried[entry.name] = search.trials(entry, request.factors, request.search_images, request.workdir)
    every = [trial.run for each in tried.values() for trial in each]
    for run in every:
        runs.check_folder(run, field.trained_on)
    failed: dict[str, str] = {}
    if request.train and not _train(every, 'trial', failed):
        return None
    for entry in field.entries:
        best = search.chosen(tried[entry.name])
        if best is None:
            raise UserError(
                f'{entry.name}: no trial of its learning rate is finished; add smaller factors to --search where all '
                'failed, and leave --no-train out'
            )
        entry.config.optim.learning_rate = best.run.config.optim.learning_rate
        logger.info(
            '%s: learning rate %g (x%g) is best on validation',
            entry.name,
            entry.config.optim.learning_rate,
            best.factor,
        )
    return tried


def _planned(field: _Field) -> list[runs.Run] | None:
    """The runs, seeds of all entries before second seeds of any; None where a SIGTERM stopped the timing."""
    request = field.request
    for entry in field.entries if request.minutes else ():
        steps = search.steps_in(request.minutes, entry, request.workdir, request.train)
        if steps is None:
            return None
        budget.for_steps(entry.config, steps)
    planned = []
    for turn in range(max(entry.seeds for entry in field.entries)):
        for entry in field.entries:
            if turn < entry.seeds:
                config = entry.config.copy_and_resolve_references()
                config.seed = entry.config.seed + turn
                planned.append(runs.run(entry.name, config, f'{entry.name}-{config.seed}', request.workdir))
    return planned


def _train(wanted: list[runs.Run], kind: str, failed: dict[str, str], tell: Callable | None = None) -> bool:
    """Finishes the runs that are not; False where a SIGTERM stopped it.

    What fails is noted by name; tell(entry's name, config) says what a run will take.
    """
    for place, run in enumerate(wanted, 1):
        if runs.finished(run):
            continue
        config = run.config
        logger.info(
            '%s %d of %d, %s: %d steps of %d images, in %s',
            *(kind, place, len(wanted), run.name, config.train.num_steps, config.train.batch_size, run.folder),
        )
        if tell:
            tell(run.entry, config)
        try:
            if not runs.finish(run):
                return False
        except UserError as error:
            failed[run.name] = str(error)
            logger.error('%s failed: %s', run.name, error)
    return True


def _write(field: _Field, planned: list[runs.Run], tried, failed: dict[str, str]) -> None:
    """league.json, league.csv, league.md, league.svg and league.html of what is finished."""
    request, config = field.request, field.config
    told = {run.name: runs.finished(run) for run in planned}
    done = [run for run in planned if told[run.name]]
    if missing := [run.name for run in planned if not told[run.name]]:
        logger.warning('not finished, and not in the table: %s', ', '.join(missing))
    each = [run.entry for run in done]
    labels = {run.name: run.name if each.count(run.entry) > 1 else run.entry for run in done}
    opened = [open_run(labels[run.name], run.folder / 'evaluation') for run in done]
    logger.info('comparing %d runs on %d images ...', len(opened), len(field.cases.names))
    found = paired.of([*field.rivals, *opened])
    groups = [_group(field, entry, [r for r in done if r.entry == entry.name], labels, told) for entry in field.entries]
    groups = [group for group in groups if group.runs]
    kinds = {name: 'baseline' for name in foreign.BASELINES}
    groups += [table.Group(run.name, kinds.get(run.name, 'foreign'), [run.name]) for run in field.rivals]
    reference = field.reference
    if reference not in [group.name for group in groups]:
        reference = groups[0].name
        logger.warning('%s is not finished: differences are to %s', field.reference, reference)
    patients = found.patients if any(found.patients) else []
    rows = table.rows(groups, found, reference)
    result = {
        'config': request.file,
        'fields': list(request.fields),
        'budget': _budget(request),
        'data': field.described,
        'split': config.evaluate.split,
        'num_images': len(found.cases),
        'num_patients': len(set(metrics.clusters(patients))) if patients else None,
        'stderr_clustered_by': 'patient' if patients else 'image',
        'samples_per_image': found.num_samples,
        'image_size': config.data.image_size,
        'ged_ideal': rows[-1]['metrics']['ged_ideal'],  # of a baseline, whose draws are independent
        'empty_share_raters': field.cases.empty_share(),
        'reference': reference,
        'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'rows': rows,
        'curves': table.curves(groups),
        'search': search.as_json(tried, request.search_images),
        'missing': {name: failed.get(name, 'not finished') for name in missing},
        'notes': found.notes,
    }
    names = [request.workdir / f'league.{kind}' for kind in ('csv', 'md', 'svg', 'html', 'json')]
    with files.whole_files(*names) as (lines, readme, picture, looks, summary):
        lines.write(table.as_csv(result).encode())
        readme.write(table.as_markdown(result).encode())
        picture.write(as_file(page.excess_against_cost(result)).encode())
        looks.writelines(piece.encode() for piece in page.page(result, found))
        summary.write(json.dumps(without_nan(result), indent=2, allow_nan=False).encode())
    print(table.as_markdown(result))
    print(request.workdir / 'league.html')


def _group(field: _Field, entry: entries.Entry, done: list[runs.Run], labels, told) -> table.Group:
    """An entry with its finished runs."""
    if not done:
        return table.Group(entry.name, 'method', [])
    config = entry.config
    training = {
        'steps': config.train.num_steps,
        'batch_size': config.train.batch_size,
        'learning_rate': config.optim.learning_rate,
    }
    return table.Group(
        entry.name,
        'method',
        [labels[run.name] for run in done],
        config.method.name,
        training,
        field.costs_of(entry.name, config),
        [told[run.name]['seconds_per_mask'] for run in done],
        [costs.history(run.folder, config.train.batch_size) for run in done],
    )


def _budget(request: Request) -> dict:
    """In one of three ways: images of all, minutes of all, or as the config says for each."""
    if request.minutes:
        return {'minutes': request.minutes}
    return {'images': request.images} if request.images else {'config': request.file}
