# Runs the program "$@" in a process group of its own, so that a signal to the script, or to all its group, reaches the
# program once: as SIGTERM. A wait that a trap interrupts has not waited: hence the loop. Sets `flowcore_code`.
flowcore_supervise() {
  set +e
  flowcore_pid='' flowcore_told=''
  trap 'flowcore_told=yes
    [ -z "${flowcore_hostfile-}" ] || rm -f "$flowcore_hostfile"  # a KILL may be next
    [ -z "$flowcore_pid" ] || kill -s TERM "$flowcore_pid" 2>/dev/null' TERM INT HUP
  set -m
  "$@" &
  flowcore_pid=$!
  set +m
  [ -z "$flowcore_told" ] || kill -s TERM "$flowcore_pid" 2>/dev/null
  while :; do
    flowcore_told=''
    wait "$flowcore_pid"
    flowcore_code=$?
    [ -n "$flowcore_told" ] || break
  done
}
