#!/usr/bin/env bash
# K processes of one run on this machine, joined over loopback: several hosts, tried at home.
#
#   HOSTS=2 launch/local_hosts.sh --config=configs/demo.py --workdir=runs/two
#
# HOSTS    processes
# DEVICES  simulated CPU devices of each; unset: what JAX finds
# PYTHON   interpreter; default: python of the PATH
# GRACE    seconds from a signal, or from the first failure, to kill -9; default 60
# DRY_RUN  1: print the commands, one a line, and run none
#
# SIGTERM and SIGINT go on to every process. When one process fails, the others are ended too: they would wait for it
# for ever. The exit status is the highest of those that ended by themselves.
set -euo pipefail

fail() {
  printf 'local_hosts.sh: %s\n' "$1" >&2
  exit 2
}

hosts=${HOSTS:?set it to the number of processes, for instance HOSTS=2}
python=${PYTHON:-python}
devices=${DEVICES:-}
grace=${GRACE:-60}
[[ $hosts =~ ^[1-9][0-9]*$ ]] || fail "HOSTS=$hosts is not a number of processes"
[[ -z $devices || $devices =~ ^[1-9][0-9]*$ ]] || fail "DEVICES=$devices is not a number of devices"
[[ $grace =~ ^[0-9]+$ ]] || fail "GRACE=$grace is not a number of seconds"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "bash $BASH_VERSION is too old; it needs 5.1"
command -v "$python" >/dev/null || fail "there is no $python: activate the virtual environment, or set PYTHON"

free_port() {
  # Below the range that systems give to outgoing connections. A port is free if nobody answers on it.
  local port
  for _ in {1..100}; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
  done
  fail 'found no free port on 127.0.0.1'
}

# Where the system can, a process dies with this script even if that is killed by kill -9.
bound=()
if setpriv --pdeathsig KILL true 2>/dev/null; then
  bound=(setpriv --pdeathsig KILL)
fi
simulated=()
if [[ -n $devices ]]; then
  # JAX_NUM_CPU_DEVICES would contradict the flag.
  flags="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
  simulated=(env -u JAX_NUM_CPU_DEVICES JAX_PLATFORMS=cpu "XLA_FLAGS=$flags")
fi
port=$(free_port)
command_of() {
  words=(${bound[@]+"${bound[@]}"} ${simulated[@]+"${simulated[@]}"} "$python" -m ambdiff.main
    --multihost "--coordinator_address=127.0.0.1:$port" "--num_processes=$hosts" "--process_id=$1" "${@:2}")
}

if [[ ${DRY_RUN:-} == 1 ]]; then
  for ((i = 0; i < hosts; i++)); do
    command_of "$i" "$@"
    printf '%q' "${words[0]}"
    printf ' %q' "${words[@]:1}"
    echo
  done
  exit
fi

declare -A running=() # process id -> index
timer=''
failed=''
worst=0

end_all() { # signal: to every process, and kill -9 after the grace period
  local pid
  for pid in "${!running[@]}"; do
    kill -s "$1" "$pid" 2>/dev/null || true
  done
  if [[ -z $timer ]]; then
    sleep "$grace" &
    timer=$!
  fi
}

kill_all() { # whole process groups: also what the processes started
  local pid
  for pid in "${!running[@]}" $timer; do
    kill -s KILL -- "-$pid" 2>/dev/null || true
  done
}

# Job control gives each process a group of its own, and leaves SIGINT to it.
set -m
trap kill_all EXIT
asked='' # a signal that comes before all have started is kept until then
trap 'asked=TERM' TERM HUP
trap 'asked=INT' INT
for ((i = 0; i < hosts; i++)); do
  command_of "$i" "$@"
  "${words[@]}" </dev/null &
  running[$!]=$i
done
trap 'end_all TERM' TERM HUP
trap 'end_all INT' INT
[[ -z $asked ]] || end_all "$asked"

while ((${#running[@]})); do
  ended=''
  status=0
  wait -n -p ended || status=$?
  [[ -n ${ended:-} ]] || continue # a signal came: its trap has run
  if [[ $ended == "$timer" ]]; then
    kill_all # the loop goes on until all are collected
    continue
  fi
  index=${running[$ended]}
  kill -s KILL -- "-$ended" 2>/dev/null || true # what a process left of its group
  unset "running[$ended]"
  if ((status == 0)); then
    continue
  fi
  # After a failure, those that died of our own signals say nothing new.
  if [[ -z $failed ]] || ((status != 143 && status != 137)); then
    ((status <= worst)) || worst=$status
  fi
  if [[ -z $failed ]]; then
    failed=$index
    printf 'local_hosts.sh: process %s of %s ended with status %s\n' "$index" "$hosts" "$status" >&2
    ((${#running[@]} == 0)) || end_all TERM
  fi
done
exit "$worst"
