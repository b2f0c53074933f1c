"""What the pages of a TIFF claim, read from their tags alone: so that nothing is decoded that the file does not hold.

Baseline TIFF and BigTIFF. Pillow decodes the pages; it follows a chain of any length, and decodes the same bytes again
for every page that names them.
"""

import dataclasses
import os
import pathlib
import struct
from typing import BinaryIO

from ambdiff.errors import UserError

MAX_PAGES = 4096
_MAX_TAGS = 4096  # of a page
_SIZES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # types of tags that hold whole numbers -> how struct reads one
# What is read of a page: {tag: (name, what is meant where it is not there)}.
_TAGS = {
    254: ('subfile', (0,)),
    256: ('columns', (0,)),
    257: ('rows', (0,)),
    258: ('bits', (1,)),
    259: ('packing', (1,)),
    262: ('photometric', (0,)),
    274: ('orientation', (1,)),
    277: ('samples', (1,)),
    279: ('stored', ()),  # bytes of strips
    284: ('planar', (1,)),
    325: ('stored', ()),  # bytes of tiles
    338: ('extra', ()),
    339: ('format', (1,)),
}
_KINDS = {1: 'unsigned integers', 2: 'signed integers', 3: 'floats'}


@dataclasses.dataclass(frozen=True)
class Page:
    """The tags of a page that say what its values mean, each as a tuple of numbers; `number` counts all pages from 0.

    subfile: bit 0 a smaller copy, bit 2 a mask of transparency. bits, format: of a sample. photometric: 0 min-is-white.
    orientation: 1 .. 8 as EXIF counts. extra: 0 unspecified, 1 premultiplied alpha, 2 alpha. stored: bytes of parts.
    packing: 1 none.
    """

    number: int
    subfile: tuple[int, ...]
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    bits: tuple[int, ...]
    packing: tuple[int, ...]
    photometric: tuple[int, ...]
    orientation: tuple[int, ...]
    samples: tuple[int, ...]
    stored: tuple[int, ...]
    planar: tuple[int, ...]
    extra: tuple[int, ...]
    format: tuple[int, ...]

    def needs(self, size: int) -> int:
        """Bytes of a file of `size` bytes that the page is decoded from."""
        if self.packing[0] != 1:
            return sum(self.stored) or size
        bits = sum(self.bits) if len(self.bits) > 1 else self.bits[0] * self.samples[0]
        return max(sum(self.stored), self.rows[0] * (self.columns[0] * bits // 8))

    def what(self) -> str:
        """What the page holds, in words: '64-bit floats'."""
        bits = '/'.join(map(str, sorted(set(self.bits))))
        many = f', {self.samples[0]} a pixel' if self.samples[0] > 1 else ''
        return f'{bits}-bit {_KINDS.get(self.format[0], "values of an unknown type")}{many}'


def pages(path: pathlib.Path, file: BinaryIO) -> list[Page]:
    """The pages of a TIFF that are images of their own: smaller copies and transparency masks are left out.

    `path` names it in messages, `file` is it, opened.

    Raises:
      UserError: too many pages, or pages that claim more bytes than the file holds; damaged.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        found = _chain(path, file, size)
    except (struct.error, IndexError) as error:
        raise UserError(f'{path}: truncated or damaged (in its tags); copy or export it again') from error
    if sum(page.needs(size) for page in found) > size:
        raise UserError(
            f'{path}: its {len(found)} page{"s" if len(found) > 1 else ""} claim more bytes than the file holds; '
            'truncated or damaged, or pages share their bytes: export it again'
        )
    return [page for page in found if not page.subfile[0] & 5] or found[:1]


def _chain(path, file, size):
    file.seek(0)
    head = file.read(16)
    order = {b'II': '<', b'MM': '>'}[head[:2]]
    big = struct.unpack(f'{order}H', head[2:4])[0] == 43
    place = struct.unpack(f'{order}Q', head[8:16])[0] if big else struct.unpack(f'{order}I', head[4:8])[0]
    seen, found, left = set(), [], 4 * size + (1 << 16)
    while place and place not in seen:
        if len(found) == MAX_PAGES:
            raise UserError(f'{path}: has more than {MAX_PAGES} pages; divide it')
        seen.add(place)
        tags, place, spent = _page(file, order, big, place, size)
        left -= spent
        if left < 0:
            raise UserError(f'{path}: its tags share their bytes; damaged, export it again')
        found.append(Page(len(found), **tags))
    return found


def _page(file, order, big, place, size):
    """(tags, where the next page is, bytes read)."""
    file.seek(place)
    (count,) = struct.unpack(order + ('Q' if big else 'H'), file.read(8 if big else 2))
    if count > _MAX_TAGS:
        raise IndexError
    width, form = (20, 'HHQ') if big else (12, 'HHI')
    block = file.read(count * width)
    after = file.read(8 if big else 4)
    following = struct.unpack(order + ('Q' if big else 'I'), after)[0] if after else 0
    tags, spent = {name: default for name, default in _TAGS.values()}, len(block)
    for entry in range(0, count * width, width):
        tag, kind, number = struct.unpack_from(order + form, block, entry)
        if tag not in _TAGS or kind not in _SIZES or not number:
            continue
        start, inline = entry + struct.calcsize(order + form), width - struct.calcsize(order + form)
        need = number * struct.calcsize(order + _SIZES[kind])
        if need > size:
            raise IndexError
        content = block[start : start + inline]
        if need > inline:
            file.seek(struct.unpack(order + ('Q' if big else 'I'), content)[0])
            content = file.read(need)
            spent += need
        tags[_TAGS[tag][0]] = struct.unpack(f'{order}{number}{_SIZES[kind]}', content[:need])
    return tags, following, spent
