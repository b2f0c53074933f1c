"""Text from outside (names of files, mostly) as it may be shown: on a terminal, in CSV, JSON and HTML."""

import hashlib
import unicodedata

# They turn the direction of what follows, so that a name reads as another one.
_TURNS = frozenset('\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')


def printable(text: str) -> str:
    r"""The text with what cannot be written or would steer a terminal escaped: 'n\xe4m', 'a\nb'.

    Bytes of a file's name that are no UTF-8 (lone surrogates in Python) become \xNN; control characters, line breaks
    and turns of the writing direction \n, \x1b or \u202e.
    """
    return ''.join(_escaped(letter) if _odd(letter) else letter for letter in text)


def short_digest(text: str) -> str:
    """Eight hex digits that stand for a text."""
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]


def _odd(letter: str) -> bool:
    return unicodedata.category(letter) in ('Cc', 'Cs', 'Zl', 'Zp') or letter in _TURNS


def _escaped(letter: str) -> str:
    if '\udc80' <= letter <= '\udcff':
        return f'\\x{ord(letter) - 0xDC00:02x}'
    return letter.encode('unicode_escape', 'backslashreplace').decode()
