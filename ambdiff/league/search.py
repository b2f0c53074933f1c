"""What is settled before a league trains: each method's learning rate, on validation, and how many steps minutes take.

The search gives everybody the same number of trials: each method's own learning rate times each factor, at a budget
that is stated, with the first seed. The least GED on the validation split wins; the test split is not looked at. Trials
are runs as any others, in <workdir>/search, and so is what a step's time is measured on, in <workdir>/timing.
"""

import dataclasses
import math
import pathlib

from ambdiff import train
from ambdiff.errors import UserError
from ambdiff.league import budget, costs, runs
from ambdiff.league.entries import Entry

TIMED_STEPS = 40


@dataclasses.dataclass(frozen=True)
class Trial:
    """One learning rate of an entry; `factor`: over the method's own."""

    factor: float
    run: runs.Run

    def ged(self) -> float:
        """On validation; NaN where the trial is not finished, or failed."""
        told = runs.finished(self.run)
        return told['metrics']['ged'] if told else math.nan


def trials(entry: Entry, factors: tuple[float, ...], images: int, workdir: pathlib.Path) -> list[Trial]:
    """The trials of an entry, each over so many images."""
    made = []
    for factor in factors:
        config = entry.config.copy_and_resolve_references()
        config.optim.learning_rate *= factor
        config.evaluate.split = 'validation'
        budget.for_images(config, images)
        config.train.sample_every = 0  # the evaluation is the look at validation
        made.append(Trial(factor, runs.run(entry.name, config, f'{entry.name}-x{factor:g}', workdir / 'search')))
    return made


def chosen(made: list[Trial]) -> Trial | None:
    """The trial with the least GED; None where none is finished."""
    return min((trial for trial in made if math.isfinite(trial.ged())), key=Trial.ged, default=None)


def as_json(made: dict[str, list[Trial]], images: int) -> dict:
    """What league.json says of the search: {} where there was none."""
    if not made:
        return {}
    rows = {
        name: [
            {
                'factor': trial.factor,
                'learning_rate': trial.run.config.optim.learning_rate,
                'ged': trial.ged(),
                'chosen': trial is chosen(each),
            }
            for trial in each
        ]
        for name, each in made.items()
    }
    return {'split': 'validation', 'images': images, 'metric': 'ged', 'trials': rows}


def steps_in(minutes: float, entry: Entry, workdir: pathlib.Path, measure: bool = True) -> int | None:
    """How many training steps of an entry take so long on this machine; None where a SIGTERM stopped the measuring.

    Measured once: what is in the folder counts for all that follows, so that a league that goes on has the same steps.

    Raises:
      UserError: it was not measured yet, and is not to be now (measure False).
    """
    config = entry.config.copy_and_resolve_references()
    budget.for_steps(config, TIMED_STEPS)
    config.train.log_every, config.train.sample_every = 5, 0
    place = runs.run(entry.name, config, entry.name, workdir / 'timing')
    if measure and not train.train(config, place.folder):
        return None
    seconds = costs.history(place.folder, config.train.batch_size).step_seconds
    if not math.isfinite(seconds):
        raise UserError(
            f'{place.folder}/metrics.jsonl does not say how long a step takes: delete the folder, leave --no-train out'
        )
    return max(round(60 * minutes / seconds), 1)
