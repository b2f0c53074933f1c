"""Runs sampling.ipynb anew and keeps, of everything it shows, the main figure alone.

  python notebooks/refresh.py

For after a change of the notebook, of what it calls, or of the weights. Needs `pip install '.[notebook]'`.
"""

import os
import pathlib
import tempfile

import nbclient
import nbformat

from ambdiff import files

PATH = pathlib.Path(__file__).with_name('sampling.ipynb')


def strip(notebook):
    """Removes outputs and counts from all cells but those tagged main-figure, which keep their pictures."""
    for cell in notebook.cells:
        cell.metadata.pop('execution', None)
        if cell.cell_type != 'code':
            continue
        cell.execution_count = None
        kept = 'main-figure' in cell.metadata.get('tags', [])
        pictures = [output for output in cell.outputs if 'image/png' in output.get('data', {})] if kept else []
        cell.outputs = [nbformat.v4.new_output('display_data', {'image/png': p['data']['image/png']}) for p in pictures]
    return notebook


def main():
    notebook = nbformat.read(PATH, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, 'PYTHONPATH': str(PATH.parents[1])}
        resources = {'metadata': {'path': folder}}
        nbclient.NotebookClient(notebook, timeout=3600, resources=resources).execute(env=env)
    files.write_whole(PATH, nbformat.writes(strip(notebook)) + '\n')


if __name__ == '__main__':
    main()
