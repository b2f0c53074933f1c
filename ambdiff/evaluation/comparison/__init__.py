"""`ambdiff compare`: runs beside each other, on the same images.

runs.py    a run: the files of an evaluation or of `ambdiff score`, opened and checked
paired.py  the same images and the same number of samples of all, paired differences to the first run
page.py    compare.html
files.py   compare.html, compare.json and compare.csv, and the table on a terminal
"""
