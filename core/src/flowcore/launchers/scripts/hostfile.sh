# The nodes in a file, each on as many lines as it gets copies: the one form that every MPI reads alike.
flowcore_scratch=$(mktemp "${TMPDIR:-${TMP:-/tmp}}/flowcore-hosts.XXXXXXXX") || exit
for flowcore_node in "${flowcore_nodes[@]}"; do
  for ((flowcore_i = 0; flowcore_i < flowcore_tasks_per_node; flowcore_i++)); do printf '%s\n' "$flowcore_node"; done
done >"$flowcore_scratch"
# Open MPI counts slots itself where it knows the resource manager: tell it how many copies each node gets, and tell the
# copies nothing of it, as what they start may be an MPI program too.
if [ "${#flowcore_found[@]}" -ge "$flowcore_nodes_per_block" ]; then
  for flowcore_name in OMPI_MCA_rmaps_base_mapping_policy PRTE_MCA_rmaps_default_mapping_policy; do
    if [ -z "${!flowcore_name+set}" ]; then
      export "$flowcore_name=ppr:$flowcore_tasks_per_node:node"
      flowcore_command="unset $flowcore_name"$'\n'$flowcore_command
    fi
  done
fi
