#!/bin/bash
# Several machines without a scheduler: the same command on each, first the one whose address all are given.
#
#   bash recipes/cluster/several-hosts.sh 10.0.0.1 2      # on each of 2 machines; 10.0.0.1 is one of them
#
# Stopped or cut off on any machine, it ends on all; the same commands go on from the last checkpoint.
set -euo pipefail
FIRST=${1:?address of the first machine}
HOSTS=${2:?number of machines}

torchrun --nnodes "$HOSTS" --nproc-per-node gpu \
  --rdzv-backend c10d --rdzv-endpoint "$FIRST:29400" --rdzv-id ropewalk \
  -m ropewalk finetune "${MODEL:-longer}" "${OUT:-tuned}" --data "${DATA:-books}" --parallel fsdp
