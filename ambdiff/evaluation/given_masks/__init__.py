"""Masks that any program or raters made, found in a file or folder a case at a time and not yet read.

masks.py    one side's masks: GivenMasks
archive.py  those of a NumPy archive (.npz)
folder.py   those of a folder of picture or NIfTI files
find.py     which of these, or which layout that training reads, lies at a place
"""
