"""The report page: self-contained, safe with strangers' names, and true to the arrays it is given."""

import dataclasses
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from ambdiff import metrics
from ambdiff.evaluation import report, scores
from ambdiff.pages import case, figures, plots


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def addresses(self):
        names = ('src', 'href', 'action', 'data', 'srcset', 'poster')
        return [attrs[name] for _, attrs in self.tags for name in names if name in attrs]


def discs(rng, shape, size=32):
    """Random discs [*shape, size, size], a fifth of them empty."""
    y, x = np.mgrid[:size, :size]
    masks = np.zeros((*shape, size, size), bool)
    for mask in masks.reshape(-1, size, size):
        if rng.random() > 0.2:
            mask |= (y - rng.integers(12, 20)) ** 2 + (x - rng.integers(12, 20)) ** 2 < rng.integers(4, 40)
    return masks


def score(raters, samples, present, patients=('',), draws='independent', **changes):
    patients = patients * (len(raters) // len(patients))
    settings = {'patients': patients, 'draws': draws, 'num_classes': 1, 'seed': 0}
    return dataclasses.replace(scores.compute(raters, present, samples, **settings), **changes)


def write(path, count=5, num_raters=4, num_samples=6, channels=1, **changes):
    rng = np.random.default_rng(count)
    arrays = {
        'images': rng.random((count, 32, 32, channels), np.float32),
        'raters': discs(rng, (count, num_raters)),
        'samples': discs(rng, (count, num_samples)),
        'cases': [f'case {i}' for i in range(count)],
        'facts': {'checkpoint': 'step 7'},
    } | changes
    arrays.setdefault('present', np.ones(arrays['raters'].shape[:2], bool))
    arrays.setdefault('scores', score(arrays['raters'], arrays['samples'], arrays['present']))
    path.write_text(''.join(report.page(**arrays)), 'utf-8')
    return arrays, path.read_text('utf-8')


def article(text, index):
    return re.search(rf'<article class="case" id="case-{index}">.*?</article>', text, re.S).group()


def test_the_page_is_one_file_that_asks_the_network_for_nothing(tmp_path):
    _, text = write(tmp_path / 'report.html')
    page = Page(text)
    assert page.addresses()
    assert all(address.startswith(('data:image/png;base64,', '#')) for address in page.addresses())
    assert 'http://' not in text and 'https://' not in text and '@import' not in text
    assert not re.search(r'url\((?!#)', text)
    assert not {'link', 'iframe', 'object', 'embed', 'base'} & {tag for tag, _ in page.tags}
    policy = next(attrs['content'] for _, attrs in page.tags if attrs.get('http-equiv'))
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert [p.name for p in tmp_path.iterdir()] == ['report.html']


@pytest.mark.parametrize('count', [1, 5])
def test_links_within_the_page_lead_somewhere_and_pictures_have_names(tmp_path, count):
    page = Page(write(tmp_path / 'report.html', count)[1])
    known = {attrs['id'] for _, attrs in page.tags if 'id' in attrs}
    assert {a[1:] for a in page.addresses() if a.startswith('#')} <= known
    assert all(attrs.get('alt') for tag, attrs in page.tags if tag == 'img')
    drawn = [attrs for tag, attrs in page.tags if tag == 'svg' and attrs.get('class') != 'store']
    assert drawn and all(attrs['role'] == 'img' and attrs['aria-label'] for attrs in drawn)


def test_names_and_facts_from_outside_cannot_become_markup(tmp_path):
    evil = '<img src=x onerror=alert(1)>"\'&'
    values = {key: 0.5 for key in metrics.ALL_KEYS}
    masks = discs(np.random.default_rng(3), (3, 6))
    found = score(masks[:, :4], masks, np.ones((3, 4), bool), table={'model': (values, values), evil: (values, values)})
    _, text = write(tmp_path / 'r.html', 3, cases=[evil] * 3, facts={evil: evil}, notice=evil, scores=found)
    page = Page(text)
    assert not any('onerror' in attrs for _, attrs in page.tags)
    assert not any(attrs.get('src') == 'x' for _, attrs in page.tags)
    assert ''.join(page.words).count(evil) >= 3 + 2 + 1 + 1


def test_shares_probabilities_and_areas_printed_are_those_of_the_arrays(tmp_path):
    arrays, text = write(tmp_path / 'report.html', 4)
    for i in range(4):
        card = article(text, i)
        for masks in (arrays['raters'][i], arrays['samples'][i]):
            empty = int((masks.sum((1, 2)) == 0).sum())
            assert f'{empty} of {len(masks)} ({empty / len(masks):.0%})' in card
        highest = arrays['samples'][i].mean(0).max()
        assert f'Probability by pixel, up to {highest:.2f}"' in card
        printed = re.findall(r'aria-label="sample (\d+): (\w+)', card)
        assert sorted(int(number) for number, _ in printed) == [1, 2, 3, 4, 5, 6]
        for number, area in printed:
            size = arrays['samples'][i][int(number) - 1].sum()
            assert area == (str(size) if size else 'empty')
        assert f'GED <b>{case.number(arrays["scores"].per_image["ged"][i])}</b>' in card
    assert f'Raters {(~arrays["raters"].any((2, 3))).mean():.1%}' in text
    assert f'model {(~arrays["samples"].any((2, 3))).mean():.1%}' in text


def test_the_table_prints_means_with_their_errors_and_a_dash_for_the_undefined(tmp_path):
    means = {key: index / 10 for index, key in enumerate(metrics.ALL_KEYS)}
    errors = {key: index / 1000 for index, key in enumerate(metrics.ALL_KEYS)}
    undefined = {key: float('nan') for key in metrics.ALL_KEYS}
    masks = discs(np.random.default_rng(3), (2, 6))
    table = {'model': (means, errors), 'rater_vs_rest': (undefined, undefined)}
    found = score(masks[:, :4], masks, np.ones((2, 4), bool), table=table)
    _, text = write(tmp_path / 'report.html', 2, scores=found)
    for key in metrics.ALL_KEYS:
        assert f'<td>{means[key]:.3f}<small>± {errors[key]:.3f}</small></td>' in text
    assert text.count('<td>–</td>') == len(metrics.ALL_KEYS) and 'nan' not in text


def test_the_model_is_placed_between_the_ideal_level_and_other_patients(tmp_path):
    masks = discs(np.random.default_rng(4), (6, 9))
    given = (masks[:, :3], masks[:, 3:], np.ones((6, 3), bool))
    found = score(*given)
    means, errors = found.table['model']
    shown = lambda key: f'{means[key]:.3f} ± {errors[key]:.3f}'
    _, text = write(tmp_path / 'r.html', 6, 3, raters=given[0], samples=given[1], scores=found)
    assert f'GED is {shown("ged")}' in text and f'The excess over it is {shown("ged_excess")}' in text
    assert f'would get {means["ged_ideal"]:.3f} on average' in text and f'ideal {means["ged_ideal"]:.3f}</text>' in text
    assert 'lowest to hope for' not in text and 'the floor' not in text
    dependent = score(*given, draws='dependent', patients=('a', 'b'))
    _, text = write(tmp_path / 'r.html', 6, 3, raters=given[0], samples=given[1], scores=dependent)
    assert 'these samples depend on each other' in text and '2 patients' in text
    assert 'GED unbiased: needs independent samples' in text


def test_the_worst_middle_and_best_cases_are_shown_and_none_twice():
    ged = np.random.default_rng(0).permutation(21) / 10
    picked = {rank: (ged[chosen] * 10).round().astype(int).tolist() for rank, chosen in report.pick_cases(ged).items()}
    assert picked == {'worst': [20, 19, 18, 17], 'median': [8, 9, 10, 11], 'best': [0, 1, 2, 3]}
    for count in range(1, 15):
        chosen = [i for ranked in report.pick_cases(np.arange(count)).values() for i in ranked]
        assert len(chosen) == len(set(chosen)) == min(count, 12)


@pytest.mark.parametrize(
    ('count', 'num_raters', 'num_samples', 'channels'), [(1, 4, 6, 1), (3, 1, 1, 1), (3, 2, 3, 4), (2, 3, 2, 3)]
)
def test_single_images_raters_samples_and_several_channels_are_shown(
    tmp_path, count, num_raters, num_samples, channels
):
    _, text = write(tmp_path / 'report.html', count, num_raters, num_samples, channels)
    assert 'nan' not in text
    card = article(text, 0)
    assert len(re.findall('aria-label="rater ', card)) == num_raters
    assert len(re.findall('aria-label="sample ', card)) == num_samples
    assert len(re.findall('aria-label="Whole ', card)) == (1 if channels in (1, 3) else channels)


def test_a_case_with_raters_has_its_scores_and_one_without_has_none():
    rng = np.random.default_rng(6)
    image, raters, samples = np.zeros((32, 32, 1), np.float32), discs(rng, (3,)), discs(rng, (5,))
    values = metrics.per_image(raters[None], samples[None])
    text = case.view('c', image, raters, samples)
    assert f'GED <b>{values["ged"][0]:.3f}</b>' in text and f'HM-IoU <b>{values["hm_iou"][0]:.3f}</b>' in text
    assert 'class="chips"' not in case.view('c', image, raters[:0], samples)


def test_a_case_where_nothing_is_drawn_is_shown_where_it_was_looked_at():
    nothing = np.zeros((4, 32, 32), bool)
    text = case.view('c', np.zeros((32, 32, 1), np.float32), nothing[:0], nothing, focus=(4, 8, 20, 24))
    assert 'viewBox="8 4 16 16"' in text


def test_cases_where_nobody_or_everybody_draws_are_shown(tmp_path):
    for masks in (np.zeros((1, 2, 32, 32), bool), np.ones((1, 2, 32, 32), bool)):
        _, text = write(tmp_path / 'report.html', 1, raters=masks, samples=masks)
        assert 'nan' not in text and 'Over all 1 image<' in text


def test_a_model_that_draws_noise_does_not_blow_up_the_page(tmp_path):
    noise = np.random.default_rng(0).random((6, 8, 128, 128)) < 0.5
    images = np.zeros((6, 128, 128, 1), np.float32)
    write(tmp_path / 'report.html', 6, images=images, raters=noise[:, :4], samples=noise)
    assert (tmp_path / 'report.html').stat().st_size < 2_000_000


def test_sizes_that_disagree_are_refused_and_leave_the_old_page(tmp_path):
    path = tmp_path / 'report.html'
    _, before = write(path, 2)
    for changes in ({'cases': ['one']}, {'images': np.zeros((2, 32, 30, 1))}, {'images': np.zeros((0, 32, 32, 1))}):
        with pytest.raises(ValueError, match=r'images'):
            write(path, 2, **changes)
    masks = discs(np.random.default_rng(3), (2, 6))
    broken = score(masks[:, :4], masks, np.ones((2, 4), bool), table={'model': ({}, {})})
    with pytest.raises(KeyError):
        write(path, 2, scores=broken)
    assert path.read_text('utf-8') == before and len(list(tmp_path.iterdir())) == 1


def area_within(path):
    """Area of a path of M, h, v and z commands, by the shoelace formula, loops of either sense."""
    total = 0
    for loop in path.split('z')[:-1]:
        x, y = (int(n) for n in re.match(r'M(\d+) (\d+)', loop).groups())
        for axis, step in re.findall(r'([hv])(-?\d+)', loop):
            if axis == 'v':
                total += x * int(step)
                y += int(step)
            else:
                x += int(step)
        assert f'M{x} {y}' in loop, 'the loop does not close'
    return total


def test_an_outline_encloses_exactly_the_mask():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert figures.outline(mask) == 'M2 1h3v2h-3v-2z'
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8, 1.0):
        mask = rng.random((9, 7)) < share
        # Clockwise loops of a y-down picture count positive, holes negative.
        assert area_within(figures.outline(mask)) == mask.sum()
    assert figures.outline(np.zeros((3, 3), bool)) == ''


def test_the_crop_holds_every_drawn_pixel_within_the_image():
    rng = np.random.default_rng(1)
    for _ in range(50):
        union = np.zeros((40, 60), bool)
        top, left = rng.integers(0, 39), rng.integers(0, 59)
        union[top : top + rng.integers(1, 30), left : left + rng.integers(1, 50)] = True
        y, x, tall, wide = case.crop(union)
        assert min(y, x) >= 0 and y + tall <= 40 and x + wide <= 60 and tall >= 24 and wide >= 24
        assert union[y : y + tall, x : x + wide].sum() == union.sum()
    assert case.crop(np.zeros((40, 60), bool)) == (0, 0, 40, 60)


def test_disagreement_is_the_entropy_in_bits():
    np.testing.assert_allclose(figures.entropy(np.array([0, 1, 0.5, 0.25])), [0, 0, 1, 0.8112781244591328])


def test_calibration_groups_images_by_what_the_model_said():
    predicted, observed = np.array([0, 0.1, 0.9, 1.0]), np.array([0, 0.5, 1.0, 0.5])
    low, high = plots.calibration_bins(predicted, observed, 4)
    assert (low['images'], low['predicted'], low['observed']) == (2, 0.05, 0.25)
    assert (high['images'], high['predicted'], high['observed']) == (2, 0.95, 0.75)
    assert 0 <= low['low'] < 0.25 < low['high'] <= 1
    # Two sure answers prove little: the interval keeps a width (Wilson: 1 / (1 + z^2 / n)).
    np.testing.assert_allclose(plots.wilson(1.0, 2), (1 / (1 + 1.96**2 / 2), 1))


def test_areas_are_counted_in_their_bins():
    masks = np.zeros((2, 2, 4, 4), bool)
    masks[0, 0, 0, :3] = True
    masks[1, 0, :2] = True
    edges = plots.area_edges(8)
    share, error = plots.area_shares(masks, edges)
    assert edges.tolist() == [0, 1, 2, 4, 8, 16] and share.tolist() == [0.5, 0, 0.25, 0, 0.25]
    np.testing.assert_allclose(error, [0, 0, 0.25, 0, 0.25])
    assert [plots.bin_name(edges, i) for i in range(4)] == ['empty', '1 px', '2 to 3 px', '4 to 7 px']


def test_the_training_picture_shows_channels_raters_and_samples_in_a_row():
    rng = np.random.default_rng(2)
    raters, samples = discs(rng, (2, 3)), discs(rng, (2, 5))
    file = report.sample_grid(np.full((2, 32, 32, 4), 0.5), raters, samples)
    pixels = np.asarray(Image.open(io.BytesIO(file)))
    assert pixels.shape == (2 * (96 + 2), (4 + 3 + 5) * (96 + 2), 3)
    tiles = pixels.reshape(2, 98, 12, 98, 3).swapaxes(1, 2)[:, :, :96:3, :96:3]
    assert (tiles[:, :4] == 128).all()
    np.testing.assert_array_equal(tiles[:, 4:7].any(-1), raters)
    np.testing.assert_array_equal(tiles[:, 7:] == 255, np.repeat(samples[..., None], 3, -1))
