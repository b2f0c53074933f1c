"""From samples to figures.

cases.py       the images of a split that are looked at, with their raters' masks
scores.py      what samples score against the raters' masks, beside baselines
files.py       the files of an evaluation, and its table
report.py      its page
validation.py  the same in little, while a model trains
from_files.py  masks that any program made -> the files of an evaluation: found (given_masks/), then matched.py by case
comparison/    runs beside each other
"""
