"""The pages in a real browser: evaluation's report and predict's index, driven by mouse and keyboard.

Needs Chromium or Chrome on the PATH and the Python package playwright; says so and skips where either is missing.
"""

import json
import shutil
import urllib.parse

import numpy as np
import pytest
import test_report
import tiny
from PIL import Image

from ambdiff import predict
from ambdiff.prediction.model import Model

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
    """{'report': .., 'index': .., 'case': ..}: files written by report and by predict."""
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
        patch.setattr(Model, 'sample_crops', sample)
        flags = [f'--checkpoint={weights}', f'--input={folder / "in"}', f'--output={folder / "out"}', '--num_samples=5']
        assert predict.main(flags) == 0
    return {
        'report': folder / 'report.html',
        'index': folder / 'out' / 'index.html',
        'case': folder / 'out' / 'a' / 'index.html',
    }


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


@pytest.mark.parametrize('name', ['report', 'index', 'case'])
def test_the_slider_changes_the_outline_and_says_so(opened, name):
    page = opened(name)
    if name == 'index':
        page.locator('details.case > summary').first.click()
        page.locator('.main').wait_for()
    figure = page.locator('.main').first
    slider = figure.locator('.slider')
    most = int(slider.get_attribute('max'))
    shown = []
    for level in (1, most):
        slider.fill(str(level))
        assert figure.locator('output').inner_text() == str(level)
        layer = figure.locator('[data-from]:not([hidden])')
        assert layer.count() == 1
        low, high = (int(layer.get_attribute(f'data-{end}')) for end in ('from', 'to'))
        assert low <= level <= high
        assert slider.get_attribute('aria-valuetext').startswith(f'drawn by at least {level} of {most}')
        shown.append(layer.inner_html())
    assert shown[0] != shown[1]


def test_the_slider_answers_to_the_keyboard(opened):
    page = opened('case')
    slider = page.locator('.slider')
    slider.focus()
    page.keyboard.press('Home')
    page.keyboard.press('ArrowRight')
    assert page.locator('output').inner_text() == '2'


@pytest.mark.parametrize('name', ['report', 'index', 'case'])
@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_no_page_is_wider_than_the_screen(opened, name, width, scheme):
    page = opened(name, width, color_scheme=scheme)
    open_all(page)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
    brightness = sum(int(part) for part in ground.strip('rgb()').split(','))
    assert brightness > 600 if scheme == 'light' else brightness < 150


def box(page):
    return [float(v) for v in page.locator('.outlines').first.get_attribute('viewBox').split()]


def test_zoom_by_button_key_and_wheel(opened):
    page = opened('case')
    home = box(page)
    page.get_by_role('button', name='Zoom in').click()
    nearer = box(page)
    assert nearer[2] == pytest.approx(home[2] / 1.5, abs=1e-3)
    assert nearer[2] / nearer[3] == pytest.approx(home[2] / home[3], abs=1e-3)
    page.get_by_role('button', name='Whole', exact=True).click()
    x, y, wide, tall = box(page)
    assert x <= 0 and y <= 0 and x + wide >= 90 and y + tall >= 60
    page.locator('.stage').focus()
    page.keyboard.press('0')
    assert box(page) == home
    for key in '++':
        page.keyboard.press(key)
    before = box(page)
    page.keyboard.press('ArrowRight')
    assert box(page)[0] > before[0] and box(page)[1:] == before[1:]
    page.keyboard.press('-')
    assert box(page)[2] > before[2]
    page.keyboard.press('0')
    page.locator('.stage').hover()
    page.mouse.wheel(0, -200)
    assert box(page) == home, 'the wheel alone scrolls the page'
    page.locator('.stage').hover()  # it has scrolled away
    page.keyboard.down('Control')
    page.mouse.wheel(0, -200)
    page.keyboard.up('Control')
    start = page.locator('.outlines').get_attribute('data-home')
    playwright = pytest.importorskip('playwright.sync_api')
    playwright.expect(page.locator('.outlines')).not_to_have_attribute('viewBox', start)
    assert box(page)[2] < home[2]


def test_dragging_moves_the_picture(opened):
    page = opened('case')
    page.get_by_role('button', name='Zoom in').click()
    before = box(page)
    stage = page.locator('.stage').bounding_box()
    page.mouse.move(stage['x'] + stage['width'] / 2, stage['y'] + stage['height'] / 2)
    page.mouse.down()
    page.mouse.move(stage['x'] + stage['width'] / 2 + 40, stage['y'] + stage['height'] / 2 + 20, steps=4)
    page.mouse.up()
    after = box(page)
    assert before[0] - after[0] == pytest.approx(40 / stage['width'] * before[2], rel=0.05)
    assert before[1] - after[1] == pytest.approx(20 / stage['height'] * before[3], rel=0.05)


def test_window_and_level_change_what_is_seen(opened):
    page = opened('case')
    page.locator('.window summary').click()
    before = page.locator('.stage').screenshot()
    page.get_by_label('Level').fill('0.1')
    page.get_by_label('Width').fill('0.2')
    assert '-860 HU?' in page.locator('.window').inner_text() and '280 HU?' in page.locator('.window').inner_text()
    line = page.locator('.outlines filter feFuncG')
    assert [float(line.get_attribute(a)) for a in ('slope', 'intercept')] == [5, 0]
    assert page.locator('.stage').screenshot() != before


def test_switching_a_rater_off_hides_the_outline(opened):
    page = opened('report')
    figure = page.locator('.main').first
    assert figure.locator('[data-layer="0"]:not([hidden])').count() == 1
    figure.locator('[data-shows="0"]').uncheck()
    assert figure.locator('[data-layer="0"]:not([hidden])').count() == 0
    assert figure.locator('[data-layer="1"]:not([hidden])').count() == 1


def test_a_sample_is_enlarged_and_the_keyboard_leads_on_and_back(opened):
    page = opened('case')
    button = page.locator('.tile .zoom').first
    button.focus()
    page.keyboard.press('Enter')
    dialog = page.get_by_role('dialog')
    text = dialog.locator('p').inner_text()
    assert text.startswith('sample')
    page.keyboard.press('ArrowRight')
    assert dialog.locator('p').inner_text() != text
    page.keyboard.press('Escape')
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.classList.contains('zoom')")


def test_names_of_files_stay_text(opened):
    page = opened('index')
    assert page.get_by_text(EVIL).first.is_visible()
    assert page.locator('img[src="x"]').count() == 0
    assert page.title() == 'Plausible masks: 3 cases'


def test_the_list_opens_by_keyboard_narrows_and_sorts(opened):
    page = opened('index')
    rows = page.locator('details.case')
    assert rows.count() == 3 and page.locator('details.case[open]').count() == 0
    page.locator('details.case > summary').first.focus()
    page.keyboard.press('Enter')
    page.locator('.main').wait_for()
    page.get_by_label('Find by name').fill('B.P')
    assert page.locator('details.case:visible').count() == 1
    assert page.get_by_role('status').inner_text() == '1 shown'
    page.get_by_label('Find by name').fill('')
    key = 'all => all.map(row => Number(row.dataset.divided))'
    page.get_by_label('Order').select_option('divided')
    divided = rows.evaluate_all(key)
    assert divided == sorted(divided, reverse=True)
    page.get_by_label('Order').select_option('name')
    places = rows.evaluate_all('all => all.map(row => row.dataset.place)')
    assert places == ['0', '1', '2']


def test_a_case_of_a_long_list_is_made_when_it_is_opened(opened, pages):
    page = opened('index')
    assert page.locator('.main').count() == 0
    page.locator('details.case > summary').nth(1).click()
    page.locator('.main').wait_for()
    assert page.locator('.main').count() == 1 and page.locator('template').count() == 2
    bare = opened('index', java_script_enabled=False)
    bare.locator('details.case > summary').first.click()
    assert bare.get_by_role('link', name='Open its page').get_attribute('href').endswith('/index.html')


def test_every_control_has_a_name_for_screen_readers(opened):
    for name in ('report', 'index', 'case'):
        page = opened(name)
        open_all(page)
        nameless = page.locator('button, input, select, a').evaluate_all(
            """all => all.filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') || e.textContent.trim() ||
               e.querySelector('[aria-label]') || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"""
        )
        assert nameless == []


def test_without_script_the_pictures_and_masks_are_there(opened):
    page = opened('case', java_script_enabled=False)
    assert page.locator('.outlines').is_visible()
    assert page.locator('.levels [data-from]:visible').count() >= 1
    assert not page.locator('.tools').is_visible()


def test_answers_on_the_page_are_those_of_the_summary(opened, pages):
    page = opened('case')
    summary = json.loads(pages['case'].with_name('summary.json').read_text())
    shown = page.locator('.modes p').all_inner_texts()
    assert len(shown) == len(summary['modes'])
    for text, mode in zip(shown, summary['modes'], strict=True):
        assert f'{mode["share"]:.0%}' in text and mode['words'] in text


def drag(page, stage, dx, dy, steps=4):
    """Presses the middle of a stage and lets go dx, dy further on."""
    x, y = stage['x'] + stage['width'] / 2, stage['y'] + stage['height'] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=steps)
    page.mouse.up()


def test_outlines_fade_with_their_slider(opened):
    page = opened('report')
    figure = page.locator('.main').first
    before = figure.locator('.stage').screenshot()
    figure.locator('[data-opacity]').fill('0')
    assert figure.locator('.opacity b').inner_text() == '0%'
    assert figure.locator('.overlays').evaluate('e => getComputedStyle(e).opacity') == '0'
    assert figure.locator('.picture').evaluate('e => getComputedStyle(e).opacity') == '1'
    assert figure.locator('.stage').screenshot() != before


def test_the_ruler_measures_in_pixels_or_millimetres(opened):
    page = opened('case')
    before = box(page)
    page.get_by_role('button', name='Ruler').click()
    stage = page.locator('.stage').bounding_box()
    pixels = 60 / stage['width'] * before[2]
    drag(page, stage, 60, 0)
    assert float(page.locator('.point').inner_text().removesuffix(' px')) == pytest.approx(pixels, abs=0.1)
    assert box(page) == before, 'the ruler does not move the picture'
    page.locator('.outlines').evaluate("svg => svg.dataset.spacing = '2 0.5'")
    drag(page, stage, 60, 0)
    assert float(page.locator('.point').inner_text().removesuffix(' mm')) == pytest.approx(pixels / 2, abs=0.1)
    drag(page, stage, 0, 30)
    tall = 30 / stage['height'] * before[3] * 2
    assert float(page.locator('.point').inner_text().removesuffix(' mm')) == pytest.approx(tall, abs=0.1)
    page.get_by_role('button', name='Ruler').click()
    assert page.locator('.ruler').count() == 0


def test_the_bar_of_known_length_follows_the_zoom(opened):
    page = opened('case')
    for press in ('', '+', '1'):
        page.locator('.stage').press(press) if press else None
        bar, stage = (page.locator(name).first.bounding_box() for name in ('.bar-scale', '.stage'))
        length = float(page.locator('.bar-scale').first.inner_text().removesuffix(' px'))
        assert length == pytest.approx(bar['width'] / stage['width'] * box(page)[2], rel=0.02)
        assert 0.1 < bar['width'] / stage['width'] < 0.34


def test_a_click_shows_and_copies_the_place_as_predict_takes_it(opened):
    page = opened('case', permissions=['clipboard-read', 'clipboard-write'])
    stage = page.locator('.stage').bounding_box()
    x, y, wide, tall = box(page)
    drag(page, stage, 0, 0)
    place = f'--at={int(x + wide / 2)},{int(y + tall / 2)}'
    page.get_by_text(f'{place} (copied)').wait_for()
    assert page.evaluate('navigator.clipboard.readText()') == place
    drag(page, stage, 40, 0)
    assert page.locator('.point').inner_text().startswith(place), 'a drag is no click'
    report = opened('report')
    report.locator('.stage').first.scroll_into_view_if_needed()
    drag(report, report.locator('.stage').first.bounding_box(), 0, 0)
    assert report.locator('.point').first.inner_text().startswith('column ')


def test_two_answers_stand_side_by_side(opened):
    page = opened('report')
    first = page.locator('.beside').first
    first.locator('summary').click()
    left, right = first.locator('svg').all()
    assert left.locator('use').last.get_attribute('href') != right.locator('use').last.get_attribute('href')
    select = first.get_by_label('Right picture')
    label = select.locator('option').last.inner_text()
    before = right.screenshot()
    select.select_option(label=label)
    assert right.get_attribute('aria-label') == f'Right: {label}' and label.startswith('rater ')
    target = right.locator('use').last.get_attribute('href')
    assert page.locator(target).count() == 1 and right.screenshot() != before


def test_every_sample_is_shown_in_the_same_window(opened):
    page = opened('report')
    for case in page.locator('article.case').all():
        windows = case.locator('.tile svg').evaluate_all("all => all.map(e => e.getAttribute('viewBox'))")
        assert len(set(windows)) == 1 and len(windows) == 10
    assert page.locator('.tile.none').count() > 0


@pytest.mark.parametrize('name', ['case', 'index'])
def test_links_lead_to_the_files_written(opened, pages, name):
    page = opened(name)
    open_all(page)
    for link in page.locator('.body .read a').all():
        path = (pages[name].parent / urllib.parse.unquote(link.get_attribute('href'))).resolve()
        assert path.is_relative_to(pages['index'].parent) and path.exists()
    shown = page.locator('.body .read').first.inner_text()
    for file in ('probability.png', 'samples_00.png', 'summary.json'):
        assert file in shown


def test_every_column_of_scores_can_be_reached_on_a_phone(opened):
    page = opened('report', 390)
    for table in page.locator('section > .wide').all():
        fixed = table.locator('thead th').first.bounding_box()
        for head in table.locator('thead th').all()[1:]:
            head.evaluate("e => { const w = e.closest('.wide'); w.scrollLeft = 0; w.scrollLeft = e.offsetLeft - 130; }")
            place, frame = head.bounding_box(), table.bounding_box()
            assert place['x'] >= fixed['x'] + fixed['width'] - 1
            assert place['x'] + place['width'] <= frame['x'] + frame['width'] + 1


@pytest.mark.parametrize('name', ['report', 'index', 'case'])
@pytest.mark.parametrize('width', [390, 1280])
def test_no_word_is_broken_in_its_middle(opened, name, width):
    page = opened(name, width)
    open_all(page)
    broken = page.evaluate("""() => {
      const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT), found = [];
      while (walker.nextNode()) {
        const node = walker.currentNode;
        if (!node.parentElement.checkVisibility() || node.parentElement.closest('svg')) continue;
        for (const word of node.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
          const range = document.createRange();
          range.setStart(node, word.index);
          range.setEnd(node, word.index + word[0].length);
          const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
          if (lines.size > 1 && word[0].length < 24) found.push(word[0]);
        }
      }
      return found;
    }""")
    assert broken == []
