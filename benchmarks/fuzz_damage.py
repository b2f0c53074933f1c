"""How fuzz_readers.py damages files: at random, and by the structure of a format where that finds more.

The values of PNG's header with its sums right, TIFF's tags, NIfTI's and DICOM's elements, the instructions of a pickle,
the parts of JSON. Each takes a sound file and a generator and gives a damaged one.
"""

import functools
import gzip
import json
import pickle
import struct
import zlib

_ODD = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 4096, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float('nan'), float('inf'), 352.0, 0.5, 3.0)
TEXTS = ('', ' ', '0', '-1', '1e999', 'nan', '1\\2', '0\\0', '\ud800', '²', 'a' * 9000, '../x', '1_0', '<b>', '\n')


def some_bytes(data, rng):
    """A few bytes changed, dropped, put in, doubled or cut off, mostly near the start."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        size = max(len(data), 1)
        place, kind = int(rng.integers(size if rng.random() < 0.5 else min(size, 700))), rng.random()
        if kind < 0.5 and data:
            data[place] = rng.integers(256)
        elif kind < 0.65:
            width = int(rng.choice([1, 2, 4, 8]))
            number = int(rng.choice(_ODD)) & ((1 << 8 * width) - 1)
            data[place : place + width] = number.to_bytes(width, str(rng.choice(['little', 'big'])))
        elif kind < 0.75:
            del data[place : place + int(rng.integers(1, 40))]
        elif kind < 0.85:
            data[place:place] = rng.bytes(int(rng.integers(1, 20)))
        elif kind < 0.93:
            data[place:place] = data[place : place + int(rng.integers(1, 400))]
        else:
            del data[max(place, 1) :]
    return bytes(data)


def png_chunks(data, rng):
    """A PNG with some chunks changed, their sums put right."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        (size,) = struct.unpack_from('>I', data, place)
        chunks.append([data[place + 4 : place + 8], bytearray(data[place + 8 : place + 8 + size])])
        place += 12 + size
    if not chunks or len(chunks[0][1]) < 13:  # damaged before
        return some_bytes(data, rng)
    for _ in range(rng.integers(1, 4)):
        kind, chunk = rng.random(), chunks[rng.integers(len(chunks))]
        if kind < 0.4:
            head = chunks[0][1]
            where = int(rng.choice([0, 4, 8, 9, 10, 11, 12]))
            odd = struct.pack('>I', int(rng.choice(_ODD))) if where < 8 else bytes([int(rng.integers(0, 18))])
            head[where : where + len(odd)] = odd
        elif kind < 0.6 and chunk[1]:
            chunk[1][int(rng.integers(len(chunk[1])))] = rng.integers(256)
        elif kind < 0.8:
            name = bytes(rng.choice([b'tRNS', b'PLTE', b'eXIf', b'acTL', b'fcTL', b'iTXt', b'gAMA', b'sBIT']))
            chunks.insert(int(rng.integers(1, len(chunks))), [name, bytearray(rng.bytes(int(rng.integers(0, 30))))])
        else:
            chunks.insert(int(rng.integers(len(chunks))), [chunk[0], bytearray(chunk[1])])
    packed = (struct.pack('>I', len(c)) + n + bytes(c) + struct.pack('>I', zlib.crc32(n + c)) for n, c in chunks)
    return data[:8] + b''.join(packed)


def tiff_tags(data, rng):
    """A TIFF with some entries of its first pages changed."""
    data, order = bytearray(data), '<' if data[:2] == b'II' else '>'
    (place,) = struct.unpack_from(f'{order}I', data, 4)
    for _ in range(rng.integers(1, 5)):
        (count,) = struct.unpack_from(f'{order}H', data, place)
        entry, kind = place + 2 + 12 * int(rng.integers(count)), rng.random()
        if kind < 0.2:
            tag = int(rng.choice([254, 262, 274, 277, 284, 317, 320, 330, 338, 339]))
            struct.pack_into(f'{order}H', data, entry, tag)
        elif kind < 0.35:
            struct.pack_into(f'{order}H', data, entry + 2, int(rng.integers(0, 19)))
        elif kind < 0.5:
            struct.pack_into(f'{order}I', data, entry + 4, int(rng.choice(_ODD)))
        elif kind < 0.9:
            struct.pack_into(f'{order}I', data, entry + 8, int(rng.choice(_ODD)) & 0xFFFFFFFF)
        else:
            struct.pack_into(f'{order}I', data, place + 2 + 12 * count, int(rng.integers(len(data))))
    return bytes(data)


def nifti_fields(data, rng):
    """A NIfTI, packed or not, with some fields of its header changed."""
    zipped = data[:2] == b'\x1f\x8b'
    data = bytearray(gzip.decompress(data) if zipped else data)
    whole = [*range(40, 56, 2), 70, 72, 252, 254]  # dim, datatype, bitpix, qform_code, sform_code
    real = [
        *range(76, 108, 4),
        108,
        112,
        116,
        *range(256, 328, 4),
    ]  # pixdim, vox_offset, slope, places
    for _ in range(rng.integers(1, 5)):
        if rng.random() < 0.5:
            struct.pack_into('<h', data, int(rng.choice(whole)), int(rng.choice(_ODD)) % 32768)
        else:
            struct.pack_into('<f', data, int(rng.choice(real)), float(rng.choice(_FLOATS)))
    return gzip.compress(bytes(data), 1) if zipped else bytes(data)


def dicom_elements(data, rng):
    """A DICOM file with some elements' values or types changed; explicit, little-endian."""
    elements, place = [], 132
    while place + 8 <= len(data):
        kind = data[place + 4 : place + 6]
        long = kind in (b'OB', b'OW', b'SQ', b'UN', b'UT', b'OF')
        size = struct.unpack_from('<I', data, place + 8)[0] if long else struct.unpack_from('<H', data, place + 6)[0]
        start = place + (12 if long else 8)
        if size == 0xFFFFFFFF:
            break
        elements.append((place, start, size))
        place = start + size
    out = bytearray(data)
    for at, start, size in sorted(
        (elements[k] for k in rng.integers(0, len(elements), rng.integers(1, 4))), reverse=True
    ):
        kind = rng.random()
        if kind < 0.6:
            text = str(rng.choice(TEXTS[:8])).encode('utf-8', 'replace')
            value = text if rng.random() < 0.6 else int(rng.choice(_ODD)).to_bytes(4, 'little')
            value += b' ' * (len(value) % 2)
            if start - at == 8:
                out[start : start + size] = value
                struct.pack_into('<H', out, at + 6, len(value))
        elif kind < 0.8:
            out[at + 4 : at + 6] = bytes(rng.choice([b'US', b'DS', b'IS', b'LO', b'CS', b'SQ', b'FD', b'OB', b'UN']))
        else:
            del out[at : start + size]
    return bytes(out)


def pickle_code(data, rng):
    """A pickle with some of its bytes changed to other instructions, or instructions put in."""
    data, codes = bytearray(data), sorted(pickle._Unpickler.dispatch)
    for _ in range(rng.integers(1, 5)):
        place, code = int(rng.integers(2, len(data))), int(rng.choice(codes))
        if rng.random() < 0.5:
            data[place] = code
        else:
            data[place:place] = bytes([code]) * int(rng.integers(1, 30))
    return bytes(data)


def odd_json(value, rng):
    """A value of JSON with one of its parts replaced, dropped or made deep."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = str(rng.choice(list(value)))
        return (
            value | {key: odd_json(value[key], rng)}
            if rng.random() < 0.9
            else {k: v for k, v in value.items() if k != key}
        )
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = int(rng.integers(len(value)))
        return [*value[:place], odd_json(value[place], rng), *value[place + 1 :]]
    deep = functools.reduce(lambda inner, _: [inner], range(int(rng.integers(1, 3000))), 0)
    odd = (None, True, {}, [], -1, 0, 1e308, 10**30, float('nan'), deep, {'': deep}, *TEXTS)
    return odd[int(rng.integers(len(odd)))]


def dump(value):
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b'[' * 100_000
