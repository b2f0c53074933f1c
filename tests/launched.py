"""Running a launch script, dry or with a stand-in for the interpreter."""

import os
import pathlib
import re
import shlex
import subprocess
import time

LAUNCH = pathlib.Path(__file__).parents[1] / 'launch'
TPU = {
    'TPU_NAME': 'pod',
    'PROJECT': 'my project',
    'ZONE': 'us-west4-a',
    'ACCELERATOR': 'v5litepod-64',
    'RUNTIME_VERSION': 'v2-alpha-tpuv5-lite',
    'WORKDIR': 'gs://bucket/runs/a b',
}
AWKWARD = ['--config=configs/lidc.py:pod', '--config.data.path=/data/a "b" $HOME \'c\'.hdf5', '--config.seed=3']
# A stand-in for the interpreter: notes how it was called, then does what PLAN says for its process.
STAND_IN = """#!{python} -IS
import json, os, pathlib, signal, subprocess, sys, time
out = pathlib.Path(os.environ['OUT'])
index = next((int(a.split('=')[1]) for a in sys.argv if a.startswith('--process_id=')), 0)
act = json.loads(os.environ['PLAN'])[index]
def save(*_):
    (out / f'saved{{index}}').touch()
    sys.exit(0)
if act == 'save':
    signal.signal(signal.SIGTERM, save)
if act == 'deaf':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
if act == 'parent':
    pids.append(subprocess.Popen(['sleep', '300']).pid)
told = dict(argv=sys.argv[1:], pids=pids, xla=os.environ.get('XLA_FLAGS'))
told['devices'] = os.environ.get('JAX_NUM_CPU_DEVICES')
(out / f'.{{index}}').write_text(json.dumps(told))
os.replace(out / f'.{{index}}', out / f'{{index}}.json')
if act.startswith('exit'):
    while 'after' in act and len(list(out.glob('*.json'))) < len(json.loads(os.environ['PLAN'])):
        time.sleep(0.01)
    sys.exit(int(act.split()[1]))
time.sleep(300)
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(**variables):
    kept = {name: os.environ[name] for name in ('PATH', 'HOME') if name in os.environ}
    return kept | {name: str(value) for name, value in variables.items()}


def call(script, *arguments, **variables):
    return subprocess.run(
        ['bash', LAUNCH / script, *arguments], env=environment(**variables), capture_output=True, text=True, timeout=60
    )


def dry(script, *arguments, **variables):
    """The commands that a dry run prints, each as its words."""
    done = call(script, *arguments, DRY_RUN=1, **variables)
    assert done.returncode == 0, done.stderr
    # A quoted newline spans lines: the whole output is read as a shell reads it, command by command.
    lexer = shlex.shlex(re.sub(r"\$'((?:[^'\\]|\\.)*)'", ansi, done.stdout), posix=True, punctuation_chars='\n')
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ' ', True, ''
    commands = [[]]
    for word in lexer:
        if set(word) == {'\n'}:
            commands.append([])
        else:
            commands[-1].append(word)
    return [c for c in commands if c]


def ansi(match):
    """$'..' as bash's printf %q writes it, in plain single quotes."""
    return shlex.quote(match[1].encode().decode('unicode_escape'))


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


def alive(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False
