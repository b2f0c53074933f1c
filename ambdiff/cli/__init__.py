"""The command `ambdiff`: what a user types, and nothing of what is then done.

entry.py   the list of commands; commands/ a file each
names.py   configs and weights by name, completed by the shell
fields.py  CONFIG and its fields on a command line
style.py   help, names and mistakes, the same for all
"""
