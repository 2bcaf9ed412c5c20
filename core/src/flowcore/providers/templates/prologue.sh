# What every job does first. A job that was taken back before it started ends here.
flowcore_job=@{files}
if [ -e "$flowcore_job.withdrawn" ]; then exit 0; fi
trap 'echo "$?" > "$flowcore_job.exit"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
export FLOWCORE_BLOCK_END=$(($(date +%s) + @{walltime_seconds}))
@{exports}
