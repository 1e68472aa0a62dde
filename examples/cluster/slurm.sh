#!/bin/bash
# A search on the nodes of one Slurm allocation:
#
#   sbatch --account=... --partition=... slurm.sh
#
# It starts one raylet a node, searches, and stops Ray. Before the time limit it interrupts the search and puts itself
# back into the queue; Slurm does that when it preempts the job or a node fails. Each time it goes on with the run.
#SBATCH --job-name=kneepoint
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# CHANGE: nodes, time, and the processors of a node (--cpus-per-task). With GPUs, which Ray finds: --gpus-per-task=4

JOB=${JOB:-job.yaml}
RUN=${RUN:-runs/first}                        # on a disk that all nodes see, whichever of them becomes the head
CPUS_PER_WORKER=${CPUS_PER_WORKER:-1}         # workers.cpus of the job, or its threads
PORT=${PORT:-6379}
WAIT_SECONDS=${WAIT_SECONDS:-300}             # for all nodes to join
MAX_RESTARTS=${MAX_RESTARTS:-50}
# source "$HOME/kneepoint-env/bin/activate"   # CHANGE: where kneepoint and ray are

set -euo pipefail
set -m                                        # without it bash starts programs deaf to the interrupt that we send

cpus=${SLURM_CPUS_PER_TASK:?start this with sbatch, with --cpus-per-task}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}                              # this script runs there
if [[ -z ${HEAD_IP:-} ]]; then
    read -r HEAD_IP _ < <(hostname -I)        # set it where another network is the faster one
fi
address=$HEAD_IP:$PORT
# One processor of the head is for the search itself.
workers=$(((cpus - 1) / CPUS_PER_WORKER + (${#nodes[@]} - 1) * (cpus / CPUS_PER_WORKER)))

# Others who reach these ports would run programs as you.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export SRUN_CPUS_PER_TASK=$cpus               # srun takes it from nowhere else

say() { echo "$(date +%T) $*" >&2; }

# start_ray NODE OPTION...: a step of its own, so that a lost node takes no other with it.
steps=()
start_ray() {
    srun --nodes=1 --ntasks=1 --nodelist="$1" --no-kill ray start --block "${@:2}" </dev/null &
    steps+=($!)
}

# Not with `ray stop`, which would stop Rays of other jobs, too. The head is last: the others tell it that they leave.
stop_ray() {
    if ((${#steps[@]} > 1)); then end "${steps[@]:1}"; fi
    if ((${#steps[@]} > 0)); then end "${steps[0]}"; fi
    steps=()
}
end() {
    kill -TERM "$@" 2>/dev/null || true
    wait "$@" 2>/dev/null || true
}

# interrupt WHY: "limit" or "slurm", which also preempts and cancels.
interrupted=""
search=""
interrupt() {
    interrupted=$1
    say "interrupted ($1); what was measured is kept"
    if [[ -n $search ]]; then kill -INT "$search" 2>/dev/null || true; fi
}
trap stop_ray EXIT
trap 'interrupt limit' USR1
trap 'interrupt slurm' TERM

# wait_for N: until N nodes are there.
wait_for() {
    local deadline=$((SECONDS + WAIT_SECONDS)) status joined=0 step
    while [[ -z $interrupted ]]; do
        status=$(ray status --address "$address" 2>/dev/null) || status=""
        joined=$(awk '/^Pending:/ {ended = 1} !ended && /^ *[0-9]+ node_/ {n += $1} END {print n + 0}' <<<"$status")
        ((joined < $1)) || return 0
        for step in "${steps[@]}"; do
            kill -0 "$step" 2>/dev/null || { say "Ray did not start on every node"; exit 1; }
        done
        ((SECONDS < deadline)) || { say "$joined of $1 nodes joined in $WAIT_SECONDS s"; exit 1; }
        sleep 2
    done
}

start_ray "$head" --head --node-ip-address="$HEAD_IP" --port="$PORT" --num-cpus=$((cpus - 1)) --include-dashboard=false
wait_for 1
if [[ -z $interrupted ]]; then
    for node in "${nodes[@]:1}"; do
        start_ray "$node" --address="$address" --num-cpus="$cpus"
    done
    wait_for ${#nodes[@]}
fi

code=0
if [[ -z $interrupted ]]; then
    if [[ -f $RUN/job.yaml ]]; then
        command=(kneepoint resume "$RUN")
    else
        command=(kneepoint search "$JOB" --out "$RUN")
    fi
    command+=(--ray "$address" --workers "$workers")
    say "${#nodes[@]} nodes: ${command[*]}"
    "${command[@]}" &
    search=$!
    if [[ -n $interrupted ]]; then kill -INT "$search"; fi   # a moment ago
    while :; do
        code=0
        wait "$search" || code=$?
        # A signal ends the wait, but not the search.
        if ((code <= 128)) || ! kill -0 "$search" 2>/dev/null; then break; fi
    done
    search=""
fi

stop_ray
case $interrupted in
    limit)
        if ((${SLURM_RESTART_COUNT:-0} >= MAX_RESTARTS)); then
            say "restarted $MAX_RESTARTS times; another sbatch goes on"
            exit 1
        fi
        say "back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
        ;;
    slurm) exit 143 ;;
    *) exit "$code" ;;
esac
