# Hands the copies to a program that starts them on all nodes. The command travels in its arguments, since there may be
# no folder that all nodes see: cut into words, as the system refuses longer ones, and each word with a dot in front, as
# some such programs give a meaning to the word `:`.
flowcore_copy() {
  # A signal to the copy's group does not end this shell before the command, whose exit code counts.
  trap : TERM INT HUP
  flowcore_guard "$PPID" </dev/null >/dev/null 2>&1 &
  printf -v flowcore_text %s "${@#.}"
  set --
  ( eval "$flowcore_text" )
  flowcore_code=$?
  kill -s KILL $!
  return "$flowcore_code"
}
# The daemon that has started a copy, as the leader of a group, may be killed so that it cannot end it: Grid Engine does
# that.
flowcore_guard() {
  local rest parent fd
  trap '' TERM INT HUP
  exec {fd}<> <(:)
  while read -r rest </proc/$$/stat && read -r _ parent _ <<<"${rest##*)}" && [ "$parent" = "$1" ]; do
    read -rt 1 -u "$fd"
  done
  kill -s TERM -- -$$
  read -rt 5 -u "$fd"
  kill -s KILL -- -$$
}
flowcore_text=$flowcore_environment$'\n'$flowcore_command
flowcore_words=()
for ((flowcore_i = 0; flowcore_i < ${#flowcore_text}; flowcore_i += 30000)); do
  flowcore_words+=(".${flowcore_text:flowcore_i:30000}")
done
flowcore_supervise "${flowcore_starter[@]}" "$flowcore_bash" -c "$(declare -f flowcore_guard flowcore_copy)"$'\nflowcore_copy "$@"' \
  flowcore "${flowcore_words[@]}" </dev/null
flowcore_tidy
exit "$flowcore_code"
