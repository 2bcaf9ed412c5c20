# What every job does first. A submission that was not answered in time is taken back: the job ends here.
flowcore_job=@{files}
if [ -e "$flowcore_job.withdrawn" ]; then exit 0; fi
trap 'echo "$?" > "$flowcore_job.exit"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
export FLOWCORE_BLOCK_END=$(($(date +%s) + @{walltime_seconds}))
@{exports}
