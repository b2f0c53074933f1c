"""From files to examples: whatever lies on disk, every source yields the example dict of example.py.

files/      one file -> values and geometry
layouts/    data sets as others lay them out; folder.py is your own
lidc/, ms_mri/, bone_us/    data sets that are built once (built.py), real and simulated
sources.py  opens what a config names; source.py says what it gives; splits.py, fingerprint.py what it is
pipeline.py, shuffle.py, augment.py    from examples to the batch of a step
check.py, survey.py, check_page.py     what a data set holds, before a run
"""
