# The job's environment as shell text, for copies that do not inherit it. What a node has set for itself stays, but for
# where programs are found.
flowcore_environment=$(
  for flowcore_name in $(compgen -e); do
    case $flowcore_name in
      _ | HOSTNAME) continue ;;
      PATH | LD_LIBRARY_PATH | PYTHONPATH) ;;
      *) printf '[ -n "${%s+set}" ] || ' "$flowcore_name" ;;
    esac
    printf 'export %s=%q\n' "$flowcore_name" "${!flowcore_name}"
  done
)
