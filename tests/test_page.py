"""The pages in a real browser: evaluation's report and predict's index, driven by mouse and keyboard."""

import json
import urllib.parse

import numpy as np
import pytest
from browser import EVIL, open_all

KINDS = ['report', 'index', 'case', 'points', 'compare', 'check']


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_no_page_is_wider_than_the_screen(opened, name, width, scheme):
    page = opened(name, width, color_scheme=scheme)
    open_all(page)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
    brightness = sum(int(part) for part in ground.strip('rgb()').split(','))
    assert brightness > 600 if scheme == 'light' else brightness < 150


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
    for name in KINDS:
        page = opened(name)
        open_all(page)
        nameless = page.locator('button, input, select, a').evaluate_all(
            """all => all.filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') || e.textContent.trim() ||
               e.querySelector('[aria-label]') || e.labels?.[0]?.textContent.trim())).map(e => e.outerHTML)"""
        )
        assert nameless == []


@pytest.mark.parametrize('name', KINDS)
def test_headings_step_down_one_by_one_and_what_scrolls_can_be_reached_by_keyboard(opened, name):
    page = opened(name, 390)
    open_all(page)
    levels = page.locator('h1, h2, h3, h4').evaluate_all('all => all.map(e => Number(e.tagName[1]))')
    assert levels[0] == 1 and max(np.diff(levels)) <= 1
    stuck = page.locator('main *').evaluate_all(
        """all => all.filter(e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto' &&
           e.tabIndex < 0).map(e => e.className)"""
    )
    assert stuck == []


def test_only_differences_that_are_clear_of_0_are_bold(opened):
    page = opened('compare')
    heavy = page.locator('[aria-label="Differences"] td').evaluate_all(
        'all => all.map(e => [Number(getComputedStyle(e).fontWeight) > 500, e.querySelector("b") !== null])'
    )
    assert heavy and not any(cell for cell, _ in heavy)


@pytest.mark.parametrize('name', ['report', 'compare', 'check'])
def test_no_text_of_a_table_or_plot_is_cut_or_covered(opened, name):
    page = opened(name, 390)
    covered = page.locator('tbody th').evaluate_all(
        'all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)'
    )
    cut = page.locator('.plot text').evaluate_all(
        """all => all.filter(e => e.getBoundingClientRect().left < e.ownerSVGElement.getBoundingClientRect().left - 1)
           .map(e => e.textContent)"""
    )
    assert covered == cut == []


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
    shown = page.locator('.body > .read').last.inner_text()
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


@pytest.mark.parametrize('name', KINDS)
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
