"""The league: methods trained and measured side by side, killed and going on, and what it refuses."""

import csv
import json
import shutil
from xml.etree import ElementTree

import archives
import numpy as np
import pytest
import tiny
from click.testing import CliRunner

from ambdiff import evaluate, methods, metrics, train
from ambdiff.cli import entry
from ambdiff.errors import UserError
from ambdiff.league import entries, runs

# A method of two numbers, which compiles in no time; its file is a stranger's, and says what suits it.
COIN = '''
"""A map p = sigmoid(a + b x) of the image x, and masks {p > u}, u ~ U(0, 1)."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from ambdiff.methods.kit import fields, masks
from ambdiff.methods.kit.contract import Method


@dataclasses.dataclass(frozen=True)
class Fields:
    start: Annotated[float, fields.Between(-9, 9)] = START


@dataclasses.dataclass(frozen=True, eq=False)
class Coin(Method):
    start: float

    def init(self, key, batch):
        return {'map': {'a': jnp.asarray(self.start), 'b': jnp.ones(())}}, {}

    def loss(self, params, state, batch, key):
        own = params['map']
        wanted = (batch['masks'] * batch['present'][..., None, None]).sum(1) / batch['present'].sum(1)[:, None, None]
        z = own['a'] + own['b'] * batch['image'][..., 0]
        loss = optax.sigmoid_binary_cross_entropy(z, wanted).mean((1, 2))
        return loss, {'entropy': loss}, state

    def bytes_per_mask(self, image_size):
        return 4 * image_size**2

    def sample(self, params, state, images, keys, num_samples, parts=1):
        own, u = params['map'], jax.vmap(lambda key: jax.random.uniform(key, (num_samples,)))(keys)
        return jax.nn.sigmoid(own['a'] + own['b'] * images[..., 0])[:, None] > u[..., None, None]


def recommend(config):
    config.optim.learning_rate = 0.05
    return config


def create(config, place=None):
    return Coin(fields.read(Fields, config.method).start)
'''
CONFIG = """
import tiny
from ambdiff import methods
from ambdiff.league import budget


def get_config(variant=''):
    config = tiny.config('DATA', variant or 'coin', **{'sample.noise': 'independent', 'optim.schedule': 'constant'})
    return budget.for_images(methods.recommend(config), 96)
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with data, a config and the methods `coin` and `bold`, found as any others."""
    folder = tmp_path_factory.mktemp('league')
    (folder / 'methods').mkdir()
    for name, start in (('coin', '0.0'), ('bold', '2.0')):
        (folder / 'methods' / f'{name}.py').write_text(COIN.replace('START', start))
    data = tiny.write_hdf5(folder / 'data.hdf5')
    (folder / 'small.py').write_text(CONFIG.replace('DATA', str(data)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, '__path__', [*methods.__path__, str(folder / 'methods')])
        yield folder


def league(place, workdir, *more, methods='coin,bold'):
    words = ['league', str(place / 'small.py'), f'--methods={methods}', '-o', str(workdir), *map(str, more)]
    return CliRunner().invoke(entry.ambdiff, words)


def told(workdir):
    return json.loads((workdir / 'league.json').read_text())


@pytest.fixture(scope='module')
def done(place):
    """The folder of a league of two methods, one of them with two seeds."""
    result = league(place, place / 'done', '--seeds=1,bold=2', '--reference=coin')
    assert result.exit_code == 0, (result.output, result.exception)
    return place / 'done'


def test_every_row_has_its_scores_costs_and_paired_difference(done):
    table = told(done)
    assert {path.name for path in done.iterdir()} >= {'league.json', 'league.csv', 'league.md', 'coin-0', 'bold-1'}
    rows = {row['name']: row for row in table['rows']}
    assert {row['name'] for row in table['rows'] if row['kind'] == 'method'} == {'coin', 'bold', 'bold-0', 'bold-1'}
    assert [row['kind'] for row in table['rows']][-4:] == ['baseline'] * 4
    coin = rows['coin']
    raters, samples = masks_of(done / 'coin-0')
    values = metrics.measure(raters, samples, 'independent')
    assert coin['metrics']['ged'] == pytest.approx(values['ged'].mean())
    assert set(coin['metrics']) >= {'ged_ideal', 'ged_excess', 'hm_iou', 'd_max', 's_c', 'd_a', 'ci', 'ged_shape'}
    assert coin['empty_share'] == pytest.approx((~samples.any((2, 3))).mean())
    assert coin['difference']['ged'] == 0
    other = metrics.measure(raters, masks_of(done / 'bold-1')[1], 'independent')['ged'] - values['ged']
    assert rows['bold-1']['difference']['ged'] == pytest.approx(other.mean())
    sums = other.reshape(-1, 2).sum(1) - 2 * other.mean()  # two images of each patient
    assert rows['bold-1']['difference_stderr']['ged'] == pytest.approx(np.sqrt((sums**2).sum()) / len(other))
    costs = coin['costs']
    assert (costs['parameters'], costs['sampling_parameters'], costs['network_evaluations_per_mask']) == (2, 2, 1)
    # a + b x, sigmoid and a comparison for each of four masks: a few operations for each of 256 pixels.
    assert 256 * 6 < costs['flops_per_image'] < 256 * 20
    assert costs['flops_per_mask'] == costs['flops_per_image'] / 4 and costs['seconds_per_mask'] > 0
    assert coin['training']['images'] == 96 and coin['training']['steps'] == 12 and coin['training']['seconds'] > 0
    assert coin['training']['learning_rate'] == 0.05, 'what the method recommends'
    assert [curve['name'] for curve in table['curves']] == ['coin', 'bold-0', 'bold-1']
    assert table['curves'][0]['images'] == [24, 48, 72, 96] and np.isfinite(table['curves'][0]['ged']).all()


def masks_of(run):
    saved = archives.read(run / 'evaluation' / 'masks.npz')
    return [np.unpackbits(saved[name], axis=-1).astype(bool) for name in ('raters', 'samples')]


def test_seeds_are_rows_of_their_own_below_their_mean_and_spread(done):
    names = [row['name'] for row in told(done)['rows']]
    rows = {row['name']: row for row in told(done)['rows']}
    assert names.index('bold') + 1 == names.index('bold-0') == names.index('bold-1') - 1
    each = [rows[f'bold-{seed}']['metrics']['ged'] for seed in (0, 1)]
    assert each[0] != each[1]
    assert rows['bold']['metrics']['ged'] == pytest.approx(np.mean(each)) and rows['bold']['seeds'] == 2
    assert rows['bold']['spread']['ged'] == pytest.approx(np.std(each, ddof=1))


def test_baselines_are_evaluates_own_and_the_majority_is_beside_them(done):
    rows = {row['name']: row for row in told(done)['rows']}
    measured = json.loads((done / 'coin-0/evaluation/metrics.json').read_text())['baselines']
    for name in ('other_patients', 'raters_resampled', 'empty'):
        assert rows[name]['metrics']['ged'] == pytest.approx(measured[name]['ged'])
    raters, _ = masks_of(done / 'coin-0')
    half = np.repeat((raters.sum(1) >= 2)[:, None], 4, 1)
    assert rows['majority']['metrics']['ged'] == pytest.approx(metrics.per_image(raters, half)['ged'].mean())


def test_csv_markdown_and_picture_say_what_json_says(done):
    table = told(done)
    with (done / 'league.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [line['name'] for line in lines] == [row['name'] for row in table['rows']]
    assert float(lines[0]['metrics.ged']) == pytest.approx(table['rows'][0]['metrics']['ged'], rel=1e-4)
    text = (done / 'league.md').read_text()
    assert ElementTree.parse(done / 'league.svg').getroot().tag == '{http://www.w3.org/2000/svg}svg'
    assert 'bold (2 seeds)' in text and 'bold-1' not in text and 'masks of other patients' in text
    assert all(line.count('|') == 11 for line in text.splitlines() if line.startswith('|'))


def copied(done, workdir, *without):
    """The league's folder with these runs taken out again, and its table."""
    shutil.copytree(done, workdir)
    for path in [*workdir.glob('league.*'), *(workdir / name for name in without)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return workdir


def test_a_league_that_was_killed_goes_on_to_the_same_table(place, done, monkeypatch):
    workdir = copied(done, place / 'killed', 'coin-0')
    words = ('--seeds=1,bold=2', '--reference=coin')
    # Killed in the middle of training, then between training and evaluation.
    with monkeypatch.context() as patch:
        patch.setattr(train.faults.Termination, 'begin', lambda self: setattr(self, 'asked', True))
        stopped = league(place, workdir, *words)
    assert stopped.exit_code == 0 and not (workdir / 'league.json').exists()
    assert [path.name for path in (workdir / 'coin-0/checkpoints').iterdir()] == ['1']
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, 'evaluate', lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = league(place, workdir, *words)
    assert stopped.exit_code == 130 and 'the same command goes on' in stopped.stderr
    assert league(place, workdir, *words).exit_code == 0
    # Nothing is left to train, and a table alone needs none.
    monkeypatch.setattr(train, 'train', None)
    assert league(place, workdir, *words, '--no-train').exit_code == 0
    timeless = lambda table: [{k: v for k, v in row.items() if k not in ('costs', 'training')} for row in table['rows']]
    assert timeless(told(workdir)) == timeless(told(done))


def test_a_run_that_fails_is_said_and_the_others_are_in_the_table(place, done, monkeypatch):
    def fail(run):
        raise UserError('the loss is not finite')

    monkeypatch.setattr(runs, 'finish', fail)
    workdir = copied(done, place / 'failing', 'bold-0')
    result = league(place, workdir, '--seeds=1,bold=2')
    assert result.exit_code == 2 and 'bold-0 failed: the loss is not finite' in result.output
    assert told(workdir)['missing'] == {'bold-0': 'the loss is not finite'}
    assert {row['name'] for row in told(workdir)['rows'] if row['kind'] == 'method'} == {'coin', 'bold'}
    assert 'bold-0 is not in the table: the loss is not finite' in (workdir / 'league.html').read_text()


def test_foreign_masks_are_a_row_and_an_entry_may_have_fields_of_its_own(place, done):
    workdir = copied(done, place / 'foreign', 'bold-0', 'bold-1')
    words = (f'--score=<b>theirs</b>:{done}/bold-1', '--images=96')
    result = league(place, workdir, *words, methods='coin,coin+start=3.0')
    assert result.exit_code == 0, (result.output, result.exception)
    rows = {row['name']: row for row in told(workdir)['rows']}
    expected = {row['name']: row for row in told(done)['rows']}['bold-1']
    assert rows['<b>theirs</b>']['metrics'] == expected['metrics'] and rows['<b>theirs</b>']['costs'] is None
    assert rows['coin+start=3.0']['metrics']['ged'] != rows['coin']['metrics']['ged']
    page, readme = ((workdir / f'league.{kind}').read_text() for kind in ('html', 'md'))
    assert '&lt;b&gt;theirs&lt;/b&gt;' in page and '<b>theirs' not in page + readme


def test_the_page_shows_the_same_images_of_all_and_fits_a_phone(done, browser):
    page = browser.new_page(viewport={'width': 390, 'height': 800})
    faults = []
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.goto((done / 'league.html').as_uri())
    assert page.evaluate('document.documentElement.scrollWidth') == 390
    assert page.locator('article.case').count() == 8
    first = page.locator('article.case').first
    titles = first.locator('h4').all_inner_texts()
    assert titles[0] == 'Raters' and {title.split(':')[0] for title in titles[1:]} == {'coin', 'bold-0'}
    assert first.locator('figure.tile').count() == 4 + 2 * 4
    assert page.locator('#takes ~ figure circle').count() == 2
    assert page.locator('#learned ~ .pair path[style]').count() == 2 * 3
    page.close()
    assert faults == []


@pytest.fixture(scope='module')
def bad_masks(place, done):
    """Archives of masks that are not the league's, by what is wrong with them."""
    good = archives.read(done / 'coin-0/evaluation/masks.npz')
    del good['image']
    wide = {'samples': np.pad(good['samples'], ((0, 0), (0, 0), (0, 8), (0, 1))), 'width': 24}
    for name, other in {
        'names': {'case': np.array([f'{case}x' for case in good['case']])},
        'fewer': {key: value[:3] for key, value in good.items() if value.ndim} | {'width': 16},
        'size': wide | {'raters': np.pad(good['raters'], ((0, 0), (0, 0), (0, 8), (0, 1)))},
        'number': {'samples': good['samples'][:, :2]},
        'raters': {'raters': good['raters'][..., ::-1, :]},
    }.items():
        np.savez(place / f'{name}.npz', **({**good, **other} if name != 'fewer' else other))
    return place


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('--methods=coin,cion', "there is no method 'cion'; there are bold,"),
        ('--methods=coin,coin', 'names coin twice'),
        ('--methods=coin+stat=1', 'no config field method.stat; did you mean config.method.start'),
        ('--methods=coin,bold+data.image_size=8', 'coin and bold+data.image_size=8 differ in data.image_size'),
        ('--methods=coin,cimd+sample.noise=stratified', 'cimd+sample.noise=stratified: its samples of an image depend'),
        ('--seeds=0', "'0' is no number of seeds from 1 to 100"),
        ('--seeds=two', "'two' is no number of seeds"),
        ('--seeds=1,ssn=2', '--seeds=1,ssn=2: ssn does not take part'),
        ('--reference=nobody', '--reference=nobody does not take part; name one of coin, bold,'),
        ('--score=theirs', 'write --score=NAME:FILE'),
        ('--score=theirs:nowhere.npz', 'nowhere.npz is not there'),
        ('--score=coin:{good}', 'the name coin is taken'),
        ('--score=empty:{good}', 'the name empty is taken'),
        ('--score=x:{place}/names.npz', 'the case test-00000 has no samples for it'),
        ('--score=x:{place}/fewer.npz', 'has no samples for it: the league scores the 8 images of test'),
        ('--score=x:{place}/size.npz', 'is 24 x 24 pixels, the league’s 16 x 16'),
        ('--score=x:{place}/number.npz', 'has 2 samples, the league takes at least 4'),
        ('--score=x:{place}/raters.npz', 'its raters’ masks are not the league’s'),
        ('--evaluate.split=dev', "split 'dev' does not exist"),
        ('--images=96 --minutes=2', '--images and --minutes are two budgets'),
        ('--search=1,1', 'no list of different factors'),
        ('-o {done} --train.batch_size=4', 'coin-0 holds a run of another setting (train.batch_size: 8 -> 4'),
        ('-o {done} --data.path={other}', 'coin-0: the training data is not what the run began with'),
    ],
)
def test_bad_input_is_one_line_before_anything_trains(words, said, bad_masks, done, tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'train', None)
    other = tiny.write_hdf5(tmp_path / 'data.hdf5', seed=9) if 'other' in words else ''
    words = words.format(place=bad_masks, good=done / 'coin-0/evaluation/masks.npz', done=done, other=other)
    before = sorted(done.rglob('*'))
    result = league(bad_masks, tmp_path / 'new', *words.split())
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith('ambdiff: ') and said in line, line
    assert not (tmp_path / 'new').exists() and sorted(done.rglob('*')) == before


def test_the_search_gives_everybody_the_same_trials_and_takes_the_best_on_validation(place):
    workdir = place / 'searched'
    result = league(place, workdir, '--search=0.1,9', '--search-images=16', '--images=16', methods='coin')
    assert result.exit_code == 0, (result.output, result.exception)
    table = told(workdir)
    assert (table['search']['split'], table['search']['images']) == ('validation', 16)
    (trials,) = table['search']['trials'].values()
    assert [trial['factor'] for trial in trials] == [0.1, 9]
    assert [trial['learning_rate'] for trial in trials] == pytest.approx([0.005, 0.45])
    best = min(trials, key=lambda trial: trial['ged'])
    assert [trial['chosen'] for trial in trials] == [trial is best for trial in trials]
    assert table['rows'][0]['training']['learning_rate'] == pytest.approx(best['learning_rate'])
    for trial in trials:
        measured = json.loads((workdir / f'search/coin-x{trial["factor"]:g}/evaluation/metrics.json').read_text())
        assert measured['split'] == 'validation' and measured['metrics']['ged'] == trial['ged']


def test_minutes_become_steps_by_what_a_step_was_measured_to_take(place, monkeypatch):
    monkeypatch.setattr(runs, 'finish', lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
    seen = []
    monkeypatch.setattr(runs, 'finished', lambda run: seen.append(run.config.train.num_steps))
    for _ in range(2):
        assert league(place, place / 'minutes', '--minutes=0.5', methods='coin').exit_code == 130
    lines = (place / 'minutes/timing/coin/metrics.jsonl').read_text().splitlines()
    rates = [json.loads(line)['images_per_second'] for line in lines]
    seconds = np.median([8 / rate for rate in rates[1:]])
    assert seen == [round(30 / seconds)] * 2


def test_commas_in_a_tuple_and_plus_in_a_number_divide_nothing(place):
    names = 'coin+model.channel_mult=(1,2),bold+optim.learning_rate=1e+0'
    found = entries.read(names, '1', str(place / 'small.py'), [])
    assert [e.name for e in found] == ['coin+model.channel_mult=(1,2)', 'bold+optim.learning_rate=1e+0']
    assert found[0].config.model.channel_mult == (1, 2) and found[1].config.optim.learning_rate == 1
