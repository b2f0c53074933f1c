"""The pages in a real browser: fixtures for the tests that drive them by mouse and keyboard.

They need Chromium or Chrome on the PATH and the Python package playwright, and skip where either is missing.
"""

import shutil

import numpy as np
import pytest
import test_cli_score
import test_report
import tiny
from PIL import Image

from ambdiff import predict
from ambdiff.data import check
from ambdiff.evaluation.comparison import files as comparison
from ambdiff.prediction.crop_sampler import CropSampler

EVIL = '<img src=x onerror=document.title=1>.png'
NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip(
        'playwright.sync_api', reason='playwright is not installed: pip install playwright'
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f'no browser installed: the pages are not tested; put one of {", ".join(NAMES)} on the PATH')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    """{kind: file}: of an evaluation, a comparison, a data check, and of predict a case, one of points and the list."""
    folder = tmp_path_factory.mktemp('pages')
    test_report.write(folder / 'report.html', 5)
    (folder / 'in').mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(('a.png', 'b.png', EVIL)):
        grey = np.where(tiny.disc((60, 90), (20 + 9 * number, 50), 6), 220, 40) + rng.integers(0, 9, (60, 90))
        Image.fromarray(grey.astype(np.uint8)).save(folder / 'in' / name)

    def sample(model, settings, crops, numbers, names):
        """Sample i marks what is brighter than a level that rises with i: the level sets differ."""
        levels = 0.1 + 0.2 * np.arange(settings.num_samples, dtype=np.float32)
        return crops[:, None, ..., 0] > levels[None, :, None, None]

    weights = tiny.write_weights(folder / 'w.safetensors')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CropSampler, 'sample_crops', sample)
        flags = [f'--checkpoint={weights}', f'--input={folder / "in"}', f'--output={folder / "out"}', '--num_samples=5']
        assert predict.main(flags) == 0
        points = [*flags[:1], f'--input={folder / "in" / "a.png"}', f'--output={folder / "points"}', '--at=50,20;20,40']
        assert predict.main(points) == 0
    return {
        'report': folder / 'report.html',
        'index': folder / 'out' / 'index.html',
        'case': folder / 'out' / 'a' / 'index.html',
        'points': folder / 'points' / 'a' / 'index.html',
        'compare': _comparison(folder / 'compare'),
        'check': _checked(folder / 'check'),
    }


def _comparison(folder):
    rng = np.random.default_rng(0)
    for name in ('a_run_of_a_rather_long_name', 'another'):
        drawn = test_report.discs(rng, (3, 5))
        raters = test_report.discs(np.random.default_rng(1), (3, 4))
        test_cli_score.write_evaluation(folder / name, ['a', 'b', 'c'], ['p', 'q', 'q'], raters, drawn)
    comparison.compare(sorted(folder.iterdir()), folder / 'out')
    return folder / 'out' / 'compare.html'


def _checked(folder):
    assert check.check(tiny.config(tiny.write_hdf5(folder.with_suffix('.hdf5'))), folder, strict=False) == 0
    return folder / 'data.html'


@pytest.fixture
def opened(browser, pages):
    """Opens a page at a width; in the end, nothing may have gone wrong in it or left it."""
    contexts, faults = [], []

    def open_page(name, width=1280, **settings):
        contexts.append(browser.new_context(viewport={'width': width, 'height': 900}, **settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on('console', lambda message: faults.append(message.text))
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on('request', lambda request: faults.append(request.url) if _leaves(request.url) else None)
        page.goto(pages[name].as_uri())
        return page

    _leaves = lambda url: not url.startswith('data:') and url not in {path.as_uri() for path in pages.values()}
    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def open_all(page):
    for _ in range(2):  # what a case holds is there once it is open
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        page.locator('details > template').first.wait_for(state='detached')


def box(page):
    return [float(v) for v in page.locator('.outlines').first.get_attribute('viewBox').split()]


def drag(page, stage, dx, dy, steps=4):
    """Presses the middle of a stage and lets go dx, dy further on."""
    x, y = stage['x'] + stage['width'] / 2, stage['y'] + stage['height'] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=steps)
    page.mouse.up()
