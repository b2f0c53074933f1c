"""Data sets as they are downloaded, told by a pattern of their paths (docs/data/pattern.md).

grammar.py    the text of a pattern -> Pattern
presets.py    the patterns of public data sets, with their known faults: one table
case.py       the files of a case, and how they are read
drawn.py      masks from outlines that are drawn into a picture
find.py       a tree and a Pattern -> cases, found and not read
"""
