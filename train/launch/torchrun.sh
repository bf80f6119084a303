#!/usr/bin/env bash
# Several machines without a scheduler. On each of them the same command, in a clone at the same path:
#   NODES=2 MASTER=node-0 train/launch/torchrun.sh --config train/configs/helpsteer2_llama31_8b.yaml [--OPTION VALUE ...]
# NODES: number of machines. MASTER: one of them, reachable from all at PORT. GPUS: processes on each machine.
# The folders that the config names must lie on a disk that all machines share. The same command resumes the run. After
# SIGTERM the ranks have GRACE seconds, by default 110, to save a checkpoint.
set -euo pipefail
exec torchrun \
    --nnodes "${NODES:?how many machines}" \
    --nproc_per_node "${GPUS:-8}" \
    --rdzv_id "${RUN:-rmkit}" \
    --rdzv_backend c10d \
    --rdzv_endpoint "${MASTER:?name of one machine}:${PORT:-29500}" \
    --shutdown_timeout "${GRACE:-110}" \
    train/train.py "$@"
