"""The page of a volume in a real browser: what turns its slices, and what turns with them."""

import numpy as np
import pytest

from ambdiff import modes
from ambdiff.pages import volume
from ambdiff.pages.frame import document
from ambdiff.pages.viewer import Frame

DEPTH, SIDE = 9, 40


def balls(radii):
    """[len(radii), Z, H, W] bool around the middle; a radius of 0 marks nothing."""
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (DEPTH, SIDE, SIDE)), indexing='ij')
    apart = np.sqrt((3 * z) ** 2 + y**2 + x**2)
    return np.stack([apart < radius for radius in radii])


RATERS, SAMPLES = balls([9, 11]), balls([0, 7, 9, 12, 0])


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    image = np.random.default_rng(0).random((DEPTH, SIDE, SIDE, 1), np.float32)
    load = lambda i: volume.Slice(image[i], RATERS[:, i], SAMPLES[:, i], f'{i} of 0 to {DEPTH - 1}', f'--at=X,Y,{i}')
    area = lambda masks: masks.sum((2, 3)).astype(float)
    sizes = volume.Sizes(area(RATERS), area(SAMPLES), RATERS.sum((1, 2, 3)), SAMPLES.sum((1, 2, 3)), ('mm²', 'mm³'))
    found = modes.find(SAMPLES)
    texts = modes.words(SAMPLES, found, (1.0, 1.0))
    body = volume.view('v', load, sizes, Frame(0, 0, SIDE, SIDE, (1.0, 1.0)), (0.0, 1.0, ''), found, texts, {})
    path = tmp_path_factory.mktemp('volume') / 'index.html'
    path.write_text(''.join(document('volume', [f'<article class="case">{body}</article>'], {})), 'utf-8')
    return path


@pytest.fixture
def page(browser, written):
    opened = []

    def open_at(width, **options):
        context = browser.new_context(viewport={'width': width, 'height': 800}, **options)
        opened.append(context)
        page = context.new_page()
        page.goto(written.as_uri())
        return page

    yield open_at
    for context in opened:
        context.close()


def shown(page):
    """The numbers of the slices that the page's pictures show, each a way of its own to know."""
    uses = page.locator('.store > defs > g > use').evaluate_all('all => all.map(u => u.getAttribute("href"))')
    layers = page.locator('.main [data-slice]:not([hidden])').evaluate_all('all => all.map(l => l.dataset.slice)')
    said = page.locator('.turn output').inner_text().split()[0]
    return {use.split('-')[1] for use in uses} | set(layers) | {said, page.locator('[data-turns]').input_value()}


def test_every_way_of_turning_turns_masks_maps_and_answers_together(page):
    opened = page(1280)
    assert shown(opened) == {'4'}
    opened.get_by_label('Slice after').click()
    assert shown(opened) == {'5'}
    opened.locator('[data-turns]').fill('1')
    assert shown(opened) == {'1'}
    stage = opened.locator('.stage')
    stage.focus()
    opened.keyboard.press('PageDown')
    assert shown(opened) == {'2'}
    stage.hover()
    opened.mouse.wheel(0, 100)
    opened.wait_for_function("document.querySelector('[data-turns]').value === '3'")
    assert shown(opened) == {'3'}
    opened.locator('.by-slice svg').click(position={'x': 5, 'y': 5})
    assert shown(opened) == {'0'}
    opened.get_by_label('Slice before').click()
    assert shown(opened) == {'0'}


def test_a_level_and_a_click_are_of_the_slice_that_is_shown(page):
    opened = page(1280)
    level = opened.locator('[data-samples]')
    level.fill('1')
    areas = []
    for z in (4, 6):
        opened.locator('[data-turns]').fill(str(z))
        areas.append(opened.locator('.legend .area').inner_text())
    assert areas == [f'{SAMPLES[:, z].any(0).sum()} mm²' for z in (4, 6)]
    opened.locator('.stage').click()
    assert opened.locator('.point').inner_text().startswith('--at=') and ',6' in opened.locator('.point').inner_text()


@pytest.mark.parametrize('width', [390, 1280])
def test_it_fits_the_screen_and_can_be_read_without_a_script(page, width):
    opened = page(width)
    assert opened.evaluate('document.documentElement.scrollWidth') <= width
    assert opened.locator('.by-slice path.of-rater').count() == 2
    bars = opened.locator('.plots rect title').evaluate_all('all => all.map(t => t.textContent)')
    assert bars[0] == '2 of 5 samples: nothing' and sum(int(bar.split()[0]) for bar in bars) == 5
    bare = page(width, java_script_enabled=False)
    assert bare.locator('.main').is_visible() and not bare.locator('.turn').is_visible()


def test_a_page_holds_the_slices_that_are_marked_and_no_more_than_fit():
    assert volume.shown([0, 0, 3, 1, 0, 0]) == [1, 2, 3, 4]
    assert volume.shown([5, 0, 0]) == [0, 1]
    assert volume.shown([0, 0, 0]) == [0, 1, 2] and volume.shown([0]) == [0]
    marked = np.ones(200, int)
    marked[150] = 9
    held = volume.shown(marked)
    assert len(held) == volume.MOST_SLICES and 150 in held and held == list(range(held[0], held[-1] + 1))
