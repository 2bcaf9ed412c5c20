# GNU parallel starts a copy in each of its slots, `flowcore_tasks_per_node` on every node: here, or through ssh. The
# command travels through the standard input, which all copies read to its end before they start; so no copy can take
# the place of another. The job log tells the copies' exit codes, where parallel itself only counts failures.
flowcore_scratch=$(mktemp -d "${TMPDIR:-${TMP:-/tmp}}/flowcore-parallel.XXXXXXXX") || exit
for flowcore_node in "${flowcore_nodes[@]}"; do
  case $flowcore_node in
    "$HOSTNAME" | "${HOSTNAME%%.*}" | localhost) flowcore_node=: ;;
  esac
  for ((flowcore_i = 0; flowcore_i < flowcore_tasks_per_node; flowcore_i++)); do printf '%s\n' "$flowcore_node"; done
done | sort | uniq -c | awk '{ print $1 "/" $2 }' >"$flowcore_scratch/nodes"
printf -v flowcore_text 'cd %q || exit\n%s\n%s' "$PWD" "$flowcore_environment" "$flowcore_command"
flowcore_copy='IFS= read -rd "" flowcore_text; eval "$flowcore_text" </dev/null'
mapfile -t flowcore_numbers < <(seq "$((flowcore_tasks_per_node * flowcore_nodes_per_block))")
flowcore_supervise parallel --will-cite --pipe --tee --ungroup --termseq TERM,10000,KILL,100 \
  --sshloginfile "$flowcore_scratch/nodes" --joblog "$flowcore_scratch/log" \
  "exec /bin/bash -c '$flowcore_copy' flowcore {}" ::: "${flowcore_numbers[@]}" <<<"$flowcore_text"
flowcore_first=$(awk -F '\t' 'NR > 1 && ($7 || $8) { print $8 ? 128 + $8 : $7; exit }' "$flowcore_scratch/log" 2>/dev/null)
flowcore_tidy
[ "$flowcore_code" -eq 0 ] || exit "${flowcore_first:-$flowcore_code}"
exit 0
