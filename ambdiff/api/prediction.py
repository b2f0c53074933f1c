"""`ambdiff.Prediction`: what the flow says of an image, with what Python code does with it."""

import dataclasses
import pathlib
import warnings

import numpy as np

from ambdiff import files
from ambdiff.prediction import output, page
from ambdiff.prediction.points import text_of
from ambdiff.prediction.result import Result
from ambdiff.scoring import score


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction(Result):
    """The samples of one image, and what they say; arrays are read-only.

    `masks` [N, H, W] or [N, D, H, W] bool, `probability` and `disagreement` float32 [H, W] or [D, H, W], `modes` (the
    distinct answers), `empty_share`, `area` and `findings`; in a notebook it shows its page.
    """

    @classmethod
    def of(cls, result: Result) -> 'Prediction':
        """What the flow gave, as users take it."""
        return cls(**{field.name: getattr(result, field.name) for field in dataclasses.fields(Result)})

    def __repr__(self) -> str:
        sides = self.samples.shape[2:] if self.samples.shape[1] == 1 else self.samples.shape[1:]
        shape = 'x'.join(map(str, sides))
        at = lambda finding: '' if finding.at is None else f'at {text_of(finding.at)}: '
        said = '; '.join(at(finding) + finding.headline for finding in self.findings)
        return f'<ambdiff.Prediction {self.title}: {len(self.samples)} masks of {shape}; {said}>'

    def score(self, raters: np.ndarray) -> dict[str, float]:
        """`ambdiff.score` of the samples against raters' masks.

        raters: [M, H, W], of a volume [M, D, H, W]: bool, 0 and 1, 0 and 255, or the labels of several classes. Of a
        volume the voxels of all slices count together.

        Raises:
          UserError: masks of another size, or values that are no mask.
        """
        volume = self.samples.shape[1] > 1
        return score(raters, self.masks, num_classes=self.samples.num_classes, volume=volume, draws=self.draws)

    def save(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Writes masks, maps, summary.json and index.html into a new folder, whole or not at all; returns it.

        What had to be left out is a warning (`warnings.warn`) in one line.

        Raises:
          UserError: something of your own lies there, or nothing can be written there.
        """
        folder = pathlib.Path(folder)
        files.check_place(folder.parent, 'save')
        for note in output.save(self, folder):
            warnings.warn(note, stacklevel=2)
        return folder

    def _repr_html_(self) -> str:
        """The case of the page, for a notebook."""
        return page.notebook(self)
