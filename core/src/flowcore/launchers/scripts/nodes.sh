# Which nodes the block has, as its resource manager tells: `flowcore_nodes` has one name a node of the block.
# Where nothing is told, this node stands for all of them.
flowcore_list_nodes() {
  local file
  for file in "${PBS_NODEFILE-}" "${COBALT_NODEFILE-}" "${PE_HOSTFILE-}" "${LSB_DJOB_HOSTFILE-}"; do
    if [ -n "$file" ]; then awk 'NF && !seen[$1]++ { print $1 }' "$file"; return; fi
  done
  if [ -n "${SLURM_JOB_NODELIST-}" ]; then scontrol show hostnames "$SLURM_JOB_NODELIST"; return; fi
  echo localhost
}
mapfile -t flowcore_found < <(flowcore_list_nodes)
[ "${#flowcore_found[@]}" -gt 0 ] || flowcore_found=(localhost)
flowcore_nodes=()
for ((flowcore_i = 0; flowcore_i < flowcore_nodes_per_block; flowcore_i++)); do
  flowcore_nodes+=("${flowcore_found[flowcore_i % ${#flowcore_found[@]}]}")
done
