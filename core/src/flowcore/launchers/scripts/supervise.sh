# Runs the program "$@" in a process group of its own, so that a signal to the script, or to all its group, reaches the
# program once: as SIGTERM. `flowcore_scratch`, a file or folder of the script's own, goes first, as a KILL may be next.
# A wait that a trap interrupts has not waited: hence the loop. Sets `flowcore_code`.
flowcore_scratch='' flowcore_pid='' flowcore_told=''
flowcore_tidy() {
  [ -z "$flowcore_scratch" ] || rm -rf "$flowcore_scratch"
}
trap 'flowcore_told=yes
  flowcore_tidy
  [ -z "$flowcore_pid" ] || kill -s TERM "$flowcore_pid" 2>/dev/null' TERM INT HUP
flowcore_supervise() {
  set +e
  [ -z "$flowcore_told" ] || { flowcore_tidy; exit 143; }
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
