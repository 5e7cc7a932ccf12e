#!/bin/sh
# Wattkeeper's last line for the user, for your site's own TaskEpilog:
#
#     wattkeeper: job 1234 used 1.20 kWh (GPUs 0,1: mean 310 W each, held back by the cap 12 % of the time)
#
# Call it from your TaskEpilog, source it there, or make it the TaskEpilog. It runs as the user when the batch script has
# ended, cancelled or not, and prints on standard error, which is the job's own: what a TaskEpilog writes to standard
# output, slurmstepd drops. It is silent in steps (srun) and on trouble, takes at most 0.3 s, and fails no job.

if [ "${SLURM_PROCID:-0}" = 0 ] && [ -n "${SLURM_JOB_GPUS:-}" ] && [ -n "${SLURM_JOB_ID:-}" ]; then
    (
        exec 3>&2 2>/dev/null
        PATH=/usr/local/bin:/usr/bin:/bin
        newline='
'
        # We were started by slurmstepd, whose title names the step, or by a program that it started. SLURM_STEP_ID alone
        # does not tell: the batch script has none of its own, but sbatch passes on the one of a step it was called in.
        step=
        pid=$PPID
        for _ in 1 2 3 4; do
            title=
            IFS= read -r title <"/proc/$pid/cmdline" || :
            case $title in
                'slurmstepd: ['*.batch]*) step='batch'; break ;;
                'slurmstepd: ['*) exit 0 ;;
            esac
            stat=
            IFS= read -r stat <"/proc/$pid/stat" || break
            stat=${stat##*) ? } # after "PID (NAME) STATE " comes the parent's
            pid=${stat%% *}
        done
        [ "$step" = batch ] || [ "${SLURM_STEP_ID:-4294967291}" = 4294967291 ] || exit 0 # the batch step: 0xfffffffb
        line=$(curl -q -sS --fail --noproxy '*' --max-time 0.3 </dev/null \
            --unix-socket "${WATTKEEPER_RUN_DIR:-/run/wattkeeper}/read.sock" \
            "http://localhost/v1/jobs/$SLURM_JOB_ID/line") || exit 0
        line=${line%%"$newline"*}
        [ -z "$line" ] || printf '%s\n' "$line" >&3
    ) || :
fi
