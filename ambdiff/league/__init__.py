"""Several methods on the same data at the same budget: trained where they are not yet, measured, set side by side.

flow.py      what is done, in its order
entries.py   who takes part, by the words of the command line
budget.py    how long a method trains
runs.py      one run: trained, evaluated, and told from one of other terms
search.py    the learning rate, chosen on validation
foreign.py   masks that another program sampled
costs.py     parameters, FLOPs, time, and what a run said while it trained
reader.py    the model as one more reader
table.py     rows and columns; league.json, league.csv, league.md
page.py      league.html
"""
