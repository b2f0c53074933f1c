#!/usr/bin/env bash
# One run on a Cloud TPU slice of any size (v4 to v6e), by queued resources.
#
#   launch/tpu_pod.sh create            ask for the slice
#   launch/tpu_pod.sh setup             code and packages onto every host, the bucket mounted
#   launch/tpu_pod.sh run FLAGS         start python -m ambdiff.main FLAGS on every host, and leave it running
#   launch/tpu_pod.sh status            the slice, and the run on each host
#   launch/tpu_pod.sh logs              follow host 0 (WORKER=3: another)
#   launch/tpu_pod.sh stop              SIGTERM to the run: it saves and ends; the slice stays, and costs
#   launch/tpu_pod.sh delete            give the slice back
#   launch/tpu_pod.sh keep FLAGS        all of it, unattended: create, setup, run; after a preemption again, and the run
#                                       resumes; deletes the slice when the run has ended
#
# TPU_NAME         name of the slice and of its queued resource
# PROJECT, ZONE    for instance my-project, us-west4-a
# ACCELERATOR      create, keep: for instance v5litepod-64
# RUNTIME_VERSION  create, keep: for instance v2-alpha-tpuv5-lite
# WORKDIR          setup, run, keep: gs://BUCKET/FOLDER, or a folder that every host sees. A bucket is mounted at
#                  /mnt/gcs/BUCKET, so data in it is --config.data.path=/mnt/gcs/BUCKET/FILE
# SPOT             1: spot capacity, a fraction of the price, taken away at any time (use keep)
# POLL             keep: seconds between looks; default 60
# DRY_RUN          1: print the commands and run none
# shellcheck disable=SC2016 # what single quotes hold is for the hosts' shells
set -euo pipefail

fail() {
  printf 'tpu_pod.sh: %s\n' "$1" >&2
  exit 2
}

quoted() { # words -> one line that a shell reads back as these words
  local line
  printf -v line ' %q' "$@"
  printf '%s\n' "${line:1}"
}

run() {
  if [[ ${DRY_RUN:-} == 1 ]]; then quoted "$@"; else "$@"; fi
}

verb=${1:-}
case $verb in
  create | setup | run | status | logs | stop | delete | keep) shift ;;
  *) fail 'give one of create, setup, run, status, logs, stop, delete, keep' ;;
esac
[[ $verb == run || $verb == keep || $# == 0 ]] || fail "$verb takes no arguments, got: $1"
name=${TPU_NAME:?set it to the name of the slice}
project=${PROJECT:?set it to the Google Cloud project}
zone=${ZONE:?set it to the zone, for instance us-west4-a}
place=("--zone=$zone" "--project=$project")
if [[ $verb == create || $verb == keep ]]; then
  accelerator=${ACCELERATOR:?set it to the slice, for instance v5litepod-64}
  runtime=${RUNTIME_VERSION:?set it to the software of the hosts, for instance v2-alpha-tpuv5-lite}
fi
if [[ $verb == setup || $verb == run || $verb == keep ]]; then
  workdir=${WORKDIR:?set it to gs://BUCKET/FOLDER, or to a folder that every host sees}
  bucket=''
  if [[ $workdir == gs://* ]]; then
    bucket=${workdir#gs://}
    bucket=${bucket%%/*}
    workdir=/mnt/gcs/${workdir#gs://}
  fi
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

on() { # worker, command: on one host, or on all of them
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"
}

create() {
  run gcloud compute tpus queued-resources create "$name" "--node-id=$name" "${place[@]}" \
    "--accelerator-type=$accelerator" "--runtime-version=$runtime" ${SPOT:+--spot}
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

state() { # ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ...
  run gcloud compute tpus queued-resources describe "$name" "${place[@]}" '--format=value(state.state)'
}

setup() { # `|| return`: set -e does not act in a function whose status is tested
  local archive=${TMPDIR:-/tmp}/ambdiff-$name.tar.gz
  if [[ ${DRY_RUN:-} != 1 && -n $(git status --porcelain --untracked-files=no) ]]; then
    echo 'tpu_pod.sh: the last commit is what runs; changes since then stay here' >&2
  fi
  run git archive "--output=$archive" HEAD || return
  run gcloud compute tpus tpu-vm scp "$archive" "$name:ambdiff.tar.gz" "${place[@]}" --worker=all || return
  run rm -f "$archive"
  # The hosts' own Python may be older than 3.11: uv brings one.
  on all 'set -e; mkdir -p ~/ambdiff; tar -xzf ~/ambdiff.tar.gz -C ~/ambdiff; cd ~/ambdiff
python3 -m pip install --quiet --user uv; ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
~/.local/bin/uv pip install --quiet --python .venv/bin/python --editable ".[tpu]"' || return
  if [[ -n $bucket ]]; then
    # Checkpoints become valid by renaming a folder, which a bucket does not allow unless told so.
    on all "set -e; mountpoint -q $(quoted "/mnt/gcs/$bucket") && exit
command -v gcsfuse >/dev/null || { . /etc/os-release; key=/usr/share/keyrings/cloud.google.asc
curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee \$key >/dev/null
echo \"deb [signed-by=\$key] https://packages.cloud.google.com/apt gcsfuse-\$VERSION_CODENAME main\" |
sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
sudo apt-get -qq update; sudo apt-get -qq install -y gcsfuse; }
sudo mkdir -p $(quoted "/mnt/gcs/$bucket"); sudo chown \"\$USER\" $(quoted "/mnt/gcs/$bucket")
gcsfuse --implicit-dirs --rename-dir-limit=100000 $(quoted "$bucket" "/mnt/gcs/$bucket")"
  fi
}

start() {
  local main
  main=$(quoted .venv/bin/python -m ambdiff.main --multihost "--workdir=$workdir" "$@")
  # ~/ambdiff.pid is Python's, so that stop reaches it; ~/ambdiff.exit appears when it has ended.
  on all "if [ -e ~/ambdiff.pid ] && kill -0 \$(cat ~/ambdiff.pid) 2>/dev/null; then
echo 'a run is going on here: stop it first' >&2; exit 1; fi
rm -f ~/ambdiff.exit; cd ~/ambdiff; nohup bash -c $(
    quoted "$main & echo \$! >~/ambdiff.pid; wait \$!; echo \$? >~/ambdiff.exit"
  ) >>~/ambdiff.log 2>&1 </dev/null &"
}

# Prints running, none, or the exit status of the run on a host.
progress='if [ -e ~/ambdiff.exit ]; then echo "ended with status $(cat ~/ambdiff.exit)"
elif [ -e ~/ambdiff.pid ] && kill -0 $(cat ~/ambdiff.pid) 2>/dev/null; then echo running; else echo none; fi'

keep() {
  local now seen faults=0
  if [[ ${DRY_RUN:-} == 1 ]]; then # one round: a preempted slice is found, made anew, and the run resumes
    state && delete && create && state && setup && start "$@" && on 0 "$progress" && delete
    return
  fi
  trap 'echo "tpu_pod.sh: the slice may still be there, and cost: delete it" >&2' EXIT
  while ((faults < 5)); do
    now=$(state 2>/dev/null || echo ABSENT)
    printf '%s slice %s is %s\n' "$(date +%FT%T)" "$name" "$now"
    case $now in
      ABSENT) create && faults=0 || faults=$((faults + 1)) ;;
      SUSPENDED | FAILED) delete || faults=$((faults + 1)) ;;
      ACTIVE)
        # A preemption leaves no exit status: it ends the shell that would write it, too.
        seen=$(on 0 "$progress" 2>/dev/null || echo unreachable)
        printf '%s run: %s\n' "$(date +%FT%T)" "$seen"
        case $seen in
          running) faults=0 ;;
          none) { setup && start "$@"; } || faults=$((faults + 1)) ;;
          'ended with status '*)
            on 0 'tail -n 20 ~/ambdiff.log' || true
            delete
            trap - EXIT
            exit "${seen##* }"
            ;;
        esac
        ;;
    esac
    sleep "${POLL:-60}"
  done
  if delete; then trap - EXIT; fi
  fail 'failed five times in a row, see above'
}

case $verb in
  create) create ;;
  setup) setup ;;
  run) start "$@" ;;
  status)
    state
    on all "$progress; tail -n 1 ~/ambdiff.log"
    ;;
  logs) on "${WORKER:-0}" 'tail -n 100 -F ~/ambdiff.log' ;;
  stop)
    on all 'kill -TERM $(cat ~/ambdiff.pid) || { echo "no run is going on here" >&2; exit; }
timeout 600 tail --pid=$(cat ~/ambdiff.pid) -f /dev/null'
    ;;
  delete) delete ;;
  keep) keep "$@" ;;
esac
