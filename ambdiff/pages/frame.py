"""The frame of every page: one HTML file that needs no network, reads on laptop and phone, in light and dark.

Pictures are data URIs, plots and masks inline SVG. The page forbids itself any request and any script but its own
(Content-Security-Policy with the script's hash).
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping

from ambdiff.pages import figures
from ambdiff.pages.script import SCRIPT

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --text: #1c2330; --soft:
  #5b6575; --line: #dde2ea; --raters: #2b7de0; --model: #d6294b; --rule: #e9edf2; --note: #fff4d6;
  --note-text: #6b4a00; }
@media (prefers-color-scheme: dark) { :root { --ground: #11151c; --card: #1a202a; --text: #e6eaf1;
  --soft: #9aa5b6; --line: #2c3542; --raters: #62a8ff; --model: #ff6b85; --rule: #28303c; --note:
  #3a2f12; --note-text: #ffdf8f; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui,
  -apple-system, 'Segoe UI', Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 0 1rem 4rem; }
nav { position: sticky; top: 0; z-index: 2; display: flex; gap: 1.2rem; overflow-x: auto; padding:
  .6rem 1rem; background: var(--card); border-bottom: 1px solid var(--line); justify-content:
  center; font-size: .9rem; }
a { color: var(--raters); text-decoration: none; }
a:hover { text-decoration: underline; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 1.6rem 0 1rem;
  letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .8rem; }
h3 { font-size: 1.05rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h4 { font-size: .85rem; margin: 1rem 0 .4rem; color: var(--soft); font-weight: 600; }
p { margin: .4rem 0; }
small { color: var(--soft); font-size: .8em; }
.notice { background: var(--note); color: var(--note-text); padding: .6rem .9rem; border-radius:
  8px; }
header dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap:
  .7rem 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .9rem 1.1rem; margin: 0; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; }
header dd { font-variant-numeric: tabular-nums; font-weight: 550; }
figure { margin: 0; }
section > figure, .pair > figure, .case { background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; padding: 1rem 1.1rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap: 1rem; }
figcaption, .read { color: var(--soft); font-size: .88rem; }
.read { max-width: 75ch; margin: .7rem 0 1rem; }
section > figure { display: grid; gap: 0 2rem; align-items: center;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.model-text { color: var(--model); }
.wide { overflow-x: auto; margin-top: 1rem; }
section > .wide { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size:
  .92rem; }
th, td { padding: .5rem .7rem; text-align: right; vertical-align: top; border-top: 1px solid
  var(--rule); }
thead th { border: 0; color: var(--soft); font-weight: 600; font-size: .82rem; vertical-align:
  bottom; }
thead th[title] { white-space: nowrap; }
tbody th { text-align: left; font-weight: 550; min-width: 8.5rem; }
thead th:first-child { text-align: left; }
th small, td small { display: block; font-weight: 400; white-space: nowrap; }
th small { white-space: normal; }
section > .wide th:first-child { position: sticky; left: 0; background: var(--card); }
section > .wide tbody tr:first-child :is(th, td) { color: var(--model); font-weight: 650; }
details { margin-top: .6rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--soft); }
details td, details th { text-align: right; padding: .25rem .6rem; }
.glossary { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
.glossary dd { color: var(--soft); }
.plot { display: block; width: 100%; height: auto; margin: .4rem auto; font-size: 14px; fill:
  var(--text); }
.plot .axis { fill: var(--soft); }
.plot .strong { font-weight: 650; fill: var(--model); }
.plot path { fill: none; }
.gridline { stroke: var(--rule); }
.diagonal { stroke: var(--soft); stroke-dasharray: 5 4; }
.bar { stroke: var(--text); stroke-width: 1.5; opacity: .75; }
.stem { stroke-width: 3; opacity: .3; }
.stem.model { stroke: var(--model); }
.stem.baseline { stroke: var(--soft); }
circle.model, rect.model { fill: var(--model); }
circle.baseline { fill: var(--soft); }
rect.raters { fill: var(--raters); }
circle.model { fill-opacity: .85; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .4em; }
.key.raters, .track .raters { background: var(--raters); }
.key.model, .track .model { background: var(--model); }
figcaption .key.model { margin-left: .6em; }
.case { margin-bottom: 1rem; }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; font-size: .85rem; margin: 0 0 .8rem; }
.chips span { background: var(--ground); border-radius: 99px; padding: .1rem .7rem; color:
  var(--soft); }
.chips b { color: var(--text); font-variant-numeric: tabular-nums; }
.store { position: absolute; width: 0; height: 0; }
.case svg, .case img, dialog svg, dialog img { display: block; width: 100%; border-radius: 6px;
  overflow: hidden; image-rendering: pixelated; }
.case image, dialog image, .store image { image-rendering: pixelated; }
.case path, dialog path { fill-rule: evenodd; stroke-width: 1.6; vector-effect:
  non-scaling-stroke; stroke-linejoin: round; fill-opacity: .22; }
dialog path { stroke-width: 2.5; }
.outlines path { fill: none; }
.stage { position: relative; border-radius: 6px; overflow: hidden; background: #000; cursor: grab;
  touch-action: pan-y; }
.stage.zoomed { touch-action: none; }
.stage svg { border-radius: 0; user-select: none; }
.tools { display: flex; gap: .4rem; margin-top: .5rem; }
.tools button, .list input, .list select { font: inherit; font-size: .9rem; color: var(--text);
  background: var(--ground); border: 1px solid var(--line); border-radius: 8px; padding: .3rem .8rem;
  min-height: 2.3rem; }
.tools button { min-width: 2.6rem; cursor: pointer; }
.window { grid-column: 1 / -1; margin-top: .2rem; }
.window label { display: grid !important; grid-template-columns: 9.5rem 1fr; }
.window b, .area { font-variant-numeric: tabular-nums; }
.modes { list-style: none; display: grid; gap: .6rem; padding: 0; margin: .2rem 0 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 255px), 1fr)); }
.modes li { display: grid; grid-template-columns: 76px 1fr; gap: .8rem; align-items: center;
  background: var(--ground); border-radius: 10px; padding: .5rem; }
.modes b { font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.modes p { margin: 0; line-height: 1.35; }
.modes small { display: block; }
.modes .track { display: block; margin: .25rem 0; }
.warning { color: var(--note-text); background: var(--note); border-radius: 8px; padding: .35rem .7rem;
  font-size: .88rem; overflow-wrap: anywhere; }
.list { display: flex; flex-wrap: wrap; gap: .6rem 1rem; align-items: end; margin: 1.6rem 0 .8rem; }
.list label { display: grid; font-size: .8rem; color: var(--soft); }
.list input { min-width: min(60vw, 18rem); }
.list span { font-size: .88rem; color: var(--soft); padding-bottom: .5rem; }
details.case { margin: 0 0 .6rem; padding: 0; font-size: 1rem; }
details.case > summary { display: grid; grid-template-columns: 52px minmax(0, 1fr) auto; gap: .1rem .9rem;
  align-items: center; padding: .55rem .9rem; color: var(--text); list-style: none; border-radius: 12px; }
details.case > summary::-webkit-details-marker { display: none; }
details.case > summary::after { content: '▸'; color: var(--soft); grid-column: 3; grid-row: 1 / 3; }
details.case[open] > summary::after { content: '▾'; }
details.case > summary img { width: 52px; height: 52px; object-fit: cover; grid-row: 1 / 3; }
details.case > summary b, details.case > summary span { overflow-wrap: anywhere; align-self: end; }
details.case > summary span { color: var(--soft); font-size: .88rem; align-self: start; grid-column: 2; }
details.case > .body { padding: .3rem 1.1rem 1.1rem; }
section.view + section.view { border-top: 1px solid var(--line); margin-top: 1.2rem; padding-top: .6rem; }
.levels path { stroke-dasharray: 5 3; stroke-width: 2; }
[hidden] { display: none; }
.top { display: grid; grid-template-columns: minmax(0, 340px) minmax(0, 1fr); gap: 1.4rem; }
.legend { display: grid; grid-template-columns: 1fr 1fr; gap: .1rem .8rem; margin-top: .6rem; }
.legend label { display: flex; align-items: center; gap: .3rem; }
.legend input { margin: 0; accent-color: var(--soft); }
.legend label:last-of-type, .slider { grid-column: 1 / -1; }
.slider { width: 100%; accent-color: var(--model) !important; }
.key.dashed { height: 0; width: 1.3em; border: 0; border-top: 2px dashed SAMPLE; border-radius: 0;
  }
html:not(.js) :is(.legend input, dialog, .tools, .window, .list) { display: none; }
output { color: var(--text); font-weight: 650; font-variant-numeric: tabular-nums; }
.panels { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.panels figcaption { margin-top: .3rem; line-height: 1.3; }
.panels small { display: block; }
.panels rect { fill: none; stroke: SAMPLE; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
dialog rect { display: none; }
.scale { display: flex; align-items: center; gap: .4em; font-size: .75rem; }
.scale i { font-style: normal; }
.scale span { flex: 1; height: .5em; border-radius: 9px; background: linear-gradient(90deg, HEAT);
  }
.shares { margin-top: .9rem; font-size: .88rem; }
.shares p { color: var(--soft); }
.share { display: grid; grid-template-columns: 4.2rem minmax(40px, 220px) max-content; gap: .7rem;
  align-items: center; }
.track { height: .6rem; background: var(--rule); border-radius: 9px; overflow: hidden; }
.track span { display: block; height: 100%; }
.share b { font-variant-numeric: tabular-nums; font-weight: 550; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: .6rem
  .5rem; }
.tile figcaption { text-align: center; font-size: .78rem; font-variant-numeric: tabular-nums; }
.tile.none svg { opacity: .55; }
.tile.none figcaption { font-style: italic; }
.zoom { display: block; width: 100%; padding: 0; border: 0; background: none; cursor: zoom-in;
  border-radius: 6px; }
:is(.zoom, a, summary, .stage, button):focus-visible { outline: 3px solid var(--raters);
  outline-offset: 2px; }
dialog { border: 0; border-radius: 12px; padding: 1rem; background: var(--card); color:
  var(--text); width: min(92vw, 78vh); text-align: center; }
dialog::backdrop { background: rgb(0 0 0 / .7); }
dialog button { font: inherit; padding: .3rem 1rem; }
@media (max-width: 720px) {
  .top { grid-template-columns: 1fr; }
  nav { justify-content: flex-start; }
  header dl { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
  .panels { grid-template-columns: repeat(3, 1fr); gap: .5rem; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .plot { font-size: 15px; } .plot.broad { font-size: 18px; }
  .case, section > figure, .pair > figure { padding: .9rem; }
}
@media print { nav, .slider, .tools, .window, .list { display: none; } .case { break-inside: avoid; } }
""".replace('SAMPLE', figures.SAMPLE_COLOUR).replace('HEAT', ', '.join(figures.HEAT))


def document(title: str, body: Iterable[str], links: Mapping[str, str]) -> Iterable[str]:
    """The parts of a page around those of its body; links {id: name} lead to headings. All but title is HTML."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    anchors = ''.join(f'<a href="#{name}">{text}</a>' for name, text in links.items())
    nav = f'<nav aria-label="Sections">{anchors}</nav>' if links else ''
    yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{html.escape(title)}</title>
<style>{STYLE}</style></head><body>{nav}<main>"""
    yield from body
    yield f"""</main>
<dialog aria-label="Picture, enlarged"><div></div><p></p><form method="dialog"><button>Close</button></form></dialog>
<script>{SCRIPT}</script></body></html>
"""


def header(title: str, facts: Mapping[str, str], notices: Iterable[str]) -> str:
    """The head of a page: what it is, lines that must not be missed, and facts; text from anywhere."""
    items = ''.join(
        f'<div><dt>{html.escape(str(key))}</dt><dd>{html.escape(str(value))}</dd></div>' for key, value in facts.items()
    )
    lines = ''.join(f'<p class="notice">{html.escape(line)}</p>' for line in notices if line)
    return f'<header><h1>{html.escape(title)}</h1>{lines}<dl>{items}</dl></header>'
