"""The picture to explore, in a real browser: slider, zoom, window, ruler, click."""

import pytest
from browser import box, drag


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
        assert slider.get_attribute('aria-valuetext').startswith(f'marked by at least {level} of {most}')
        shown.append(layer.inner_html())
    assert shown[0] != shown[1]


def test_the_slider_answers_to_the_keyboard(opened):
    page = opened('case')
    slider = page.locator('.slider')
    slider.focus()
    page.keyboard.press('Home')
    page.keyboard.press('ArrowRight')
    assert page.locator('output').inner_text() == '2'


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
    said = page.locator('.window').inner_text()
    assert '-860 HU assumed' in said and '280 HU assumed' in said
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
    page.locator('.stage').scroll_into_view_if_needed()
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
