#!/bin/sh
# Wattkeeper's line for the user, for your site's own TaskProlog:
#
#     wattkeeper: GPUs 0,1 capped at 250 W each (you asked 300 W; rule 'everyone' allows up to 250 W)
#
# Call it from your TaskProlog, source it there, or make it the TaskProlog. It runs as the user, prints only in the
# batch script (a line in every task would end up in `x=$(srun ...)`), takes at most 0.3 s, and is silent on trouble.

if [ "${SLURM_PROCID:-0}" = 0 ] && [ -n "${SLURM_JOB_GPUS:-}" ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    (
        PATH=/usr/local/bin:/usr/bin:/bin
        newline='
'
        # The task is still slurmstepd, whose title names the step. SLURM_STEP_ID alone does not tell: the batch script
        # has none of its own, but sbatch passes on the one of a step that it was called in.
        title=
        IFS= read -r title <"/proc/${SLURM_TASK_PID:-absent}/cmdline" || :
        case $title in
            'slurmstepd: ['*.batch]*) ;;
            'slurmstepd: ['*) exit 0 ;;
            *) [ "${SLURM_STEP_ID:-4294967291}" = 4294967291 ] || exit 0 ;; # the batch step's number: 0xfffffffb
        esac
        line=$(curl -q -sS --fail --noproxy '*' --max-time 0.3 </dev/null \
            --unix-socket "${WATTKEEPER_RUN_DIR:-/run/wattkeeper}/read.sock" \
            "http://localhost/v1/jobs/$SLURM_JOB_ID/message") || exit 0
        line=${line%%"$newline"*}
        [ -z "$line" ] || printf 'print %s\n' "$line"
    ) 2>/dev/null || :
fi
