"""From samples to figures.

cases.py       the images of a split that are looked at, with their raters' masks
scores.py      what samples score against the raters' masks, beside baselines
files.py       the files of an evaluation, and its table
validation.py  the same in little, while a model trains
"""
