"""The frame of every page: one HTML file that needs no network, reads on laptop and phone, in light and dark.

Pictures are data URIs, plots and masks inline SVG. The page forbids itself any request and any script but its own
(Content-Security-Policy with the script's hash).
"""

import base64
import hashlib
import html
import importlib.resources
import re
from collections.abc import Iterable, Mapping

from ambdiff.pages import figures

_HERE = importlib.resources.files('ambdiff.pages')
# The colours that pictures and page share stand in figures.py.
STYLE = f':root {{ --sample: {figures.SAMPLE_COLOUR}; --heat: {", ".join(figures.HEAT)}; }}\n' + _HERE.joinpath(
    'style.css'
).read_text('utf-8')
# One script, so that its hash can stand in the page's Content-Security-Policy.
SCRIPT = ''.join(_HERE.joinpath(name).read_text('utf-8') for name in ('viewer.js', 'volume.js', 'page.js'))


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
        f'<div><dt>{html.escape(str(key))}</dt><dd>{breakable(str(value))}</dd></div>' for key, value in facts.items()
    )
    lines = ''.join(f'<p class="notice">{html.escape(line)}</p>' for line in notices if line)
    listed = f'<dl>{items}</dl>' if items else ''
    return f'<header><h1>{breakable(title)}</h1>{lines}{listed}</header>'


def breakable(text: str) -> str:
    """Text from anywhere as HTML that may be broken between the parts of a file's name, not inside of them."""
    return re.sub(r'([_/.])(?=[^\W_])', r'\1<wbr>', html.escape(text))
