"""Simulated eye photographs in which outlines of disc and cup are drawn, laid out as RIGA is."""

import numpy as np
from PIL import Image, ImageDraw


def fundus(rng, size):
    """A reddish picture [size, size, 3] with a bright disc, vessels across it, and noise."""
    y, x = np.mgrid[:size, :size]
    picture = np.stack([150 + 20 * np.sin(x / 17), 70 + 10 * np.cos(y / 11), 40.0 + 0 * x], -1)
    picture += 60 * np.exp(-((np.hypot(x - size / 2, y - size / 2) / (0.22 * size)) ** 4))[..., None]
    angles = rng.uniform(0, np.pi, 5)
    vessels = [np.abs((x - size / 2) * np.sin(a) - (y - size / 2) * np.cos(a)) < size / 90 for a in angles]
    picture[np.any(vessels, 0)] -= 35
    return (picture + rng.normal(0, 3, picture.shape)).clip(0, 255).astype(np.uint8)


def ellipse(size, radius, shift=0.0):
    """Points of an upright ellipse around the centre, moved aside by a share of the size."""
    angle = np.linspace(0, 2 * np.pi, 200)
    return np.stack([size * (0.5 + shift + radius * np.cos(angle)), size * (0.5 + 1.1 * radius * np.sin(angle))], -1)


def enclosed(size, points):
    """What an outline encloses, [size, size] bool, from a picture four times as large."""
    large = Image.new('L', (4 * size, 4 * size))
    ImageDraw.Draw(large).polygon([(4 * x + 2, 4 * y + 2) for x, y in points], fill=255)
    return np.asarray(large.resize((size, size), Image.Resampling.BOX)) > 127


def draw(picture, *outlines, colour=(0, 0, 0), width=2, strength=1.0):
    """The picture with lines through the points of outlines."""
    lined = Image.fromarray(picture)
    for points in outlines:
        ImageDraw.Draw(lined).line([tuple(point) for point in points.tolist()], fill=colour, width=width)
    return (strength * np.asarray(lined) + (1 - strength) * picture).astype(np.uint8)


def save(path, picture, quality=92):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **({'quality': quality} if path.suffix == '.jpg' else {}))


def radii(rater):
    """(disc, cup) of a rater, as shares of the size."""
    return 0.24 + 0.01 * rater, 0.10 + 0.015 * rater


def riga(root, size=96):
    """Five pictures of three raters in three folders, with the known faults of the release."""
    rng = np.random.default_rng(0)
    names = {
        'BinRushed/BinRushed1-Corrected': ('image1', 'image44'),
        'Magrabia/MagrabiFemale': ('image26', 'image48'),
        'MESSIDOR': ('image1', 'image2'),
    }
    for folder, images in names.items():
        ending = 'jpg' if folder.startswith('Bin') else 'tif'
        for name in images:
            clean = fundus(rng, size)
            if name != 'image48':
                save(root / folder / f'{name}prime.{ending}', clean)
            for rater in range(1, 4):
                disc, cup = radii(rater)
                touches = (name, rater) == ('image44', 3)
                faint = (name, rater) == ('image26', 3)
                lines = ellipse(size, disc), ellipse(size, cup, disc - cup if touches else 0)
                save(root / folder / f'{name}-{rater}.{ending}', draw(clean, *lines, strength=0.25 if faint else 1))
    save(root / 'Magrabia' / 'MagrabiaMale' / 'ImageXY-1.tif', fundus(rng, size))
