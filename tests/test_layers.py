"""Imports of the package run downwards by the map of CONTRIBUTING.md, and in no circle, wherever they stand."""

import ast
import graphlib
import itertools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOP = ('ambdiff', 'ambdiff.__main__')  # above all rooms: what users import, and what starts


def imports(root):
    """{module: the modules of its package that it imports}, also within functions and for types alone."""
    files = {}
    for path in sorted((root / 'ambdiff').rglob('*.py')):
        name = '.'.join(path.relative_to(root).with_suffix('').parts)
        files[name.removesuffix('.__init__')] = path
    found = {}
    for name, path in files.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f'{path}: a relative import; write it out'
                whole = [f'{node.module}.{alias.name}' for alias in node.names]
                named.update(one if one in files else node.module for one in whole)
        found[name] = {one for one in named if one in files} - {name}
    return found


def layers(text):
    """{room: its line, counted from below}; rooms joined by + are one."""
    (block,) = re.findall(r'```\n(cli\b.*?)```', text, re.DOTALL)
    lines = [line.split() for line in reversed(block.splitlines())]
    return {room: (height, rooms) for height, line in enumerate(lines) for rooms in line for room in rooms.split('+')}


def placed(module, known):
    """(line, room) of a module: the longest name of the map that it begins with."""
    rooms = list(itertools.accumulate(module.removeprefix('ambdiff.').split('.'), '{}.{}'.format))
    best = max((room for room in rooms if room in known), key=len, default=None)
    assert best, f'{module} is in no room of the map in CONTRIBUTING.md: put it on a line there'
    return known[best]


def faults(found, known):
    """A line for each import that runs upwards or sideways, and one for a circle."""
    rooms = {module: placed(module, known) for module in found if module not in TOP}
    lines = [
        f'{module} imports {one}, which is not below it'
        for module in rooms
        for one in sorted(found[module])
        if one in TOP or (rooms[one][0] >= rooms[module][0] and rooms[one] != rooms[module])
    ]
    try:
        graphlib.TopologicalSorter(found).prepare()
    except graphlib.CycleError as error:
        lines.append(f'a circle: {" <- ".join(error.args[1])}')
    return lines


def test_imports_run_downwards_and_in_no_circle():
    known = layers((ROOT / 'CONTRIBUTING.md').read_text('utf-8'))
    found = imports(ROOT)
    assert faults(found, known) == []
    there = {'.'.join(parts[:depth]) for parts in (name.split('.')[1:] for name in found) for depth in (1, 2)}
    assert not set(known) - there, 'rooms of the map that are not there'


@pytest.mark.parametrize(
    ('files', 'said'),
    [
        ({'a': 'def f():\n    from ambdiff.b import x'}, 'ambdiff.a imports ambdiff.b, which is not below it'),
        ({'a': 'if TYPE_CHECKING:\n    from ambdiff import b'}, 'ambdiff.a imports ambdiff.b, which is not below it'),
        ({'a': 'import ambdiff'}, 'ambdiff.a imports ambdiff, which is not below it'),
        ({'c': 'import ambdiff.b'}, 'ambdiff.c imports ambdiff.b, which is not below it'),
        ({'a': '', 'b.x': 'from ambdiff.b import y', 'b.y': 'from ambdiff.b.x import z'}, 'a circle: '),
        ({'b.x': 'from ambdiff import a', 'b.own': 'from ambdiff.b import x'}, ''),
    ],
)
def test_what_runs_upwards_sideways_or_in_a_circle_is_found(tmp_path, files, said):
    for name, text in {'__init__': '', 'a': '', 'b': '', 'c': '', **files}.items():
        path = tmp_path / 'ambdiff' / f'{name.replace(".", "/")}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    if any('b.' in name for name in files):
        (tmp_path / 'ambdiff' / 'b.py').rename(tmp_path / 'ambdiff' / 'b' / '__init__.py')
    known = layers('```\ncli b.own\nb c\na\n```' if 'b.own' in files else '```\ncli\nb c\na\n```')
    found = faults(imports(tmp_path), known)
    assert (len(found) == 1 and said in found[0]) if said else found == []
