#!/bin/bash
# session plain|terminal TOKEN DIRECTORY [rw:PATH|ro:PATH]… [NAME=VALUE]… -- COMMAND…
# One command of `lab run`: binds the host's fresh directories onto their paths, runs the command
# in DIRECTORY, notes its process group under TOKEN for `signal`, and ends as it ended. It starts
# as few programs as it can, since each costs tens of milliseconds here.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mode=$1 note=/run/lab/sessions/$2 directory=$3
shift 3

is_mounted() { # PATH
    [[ $(</proc/self/mountinfo) == *" $1 "* ]]
}

fresh() { # PATH ro|rw
    is_mounted "$1" && return
    [ -d "/run/lab/host$1" ] || return
    exec 9>/run/lab/mounts.lock; flock 9
    if ! is_mounted "$1"; then
        mkdir -p "$1" && mount --bind "/run/lab/host$1" "$1" && [ "$2" = ro ] &&
            mount -o remount,bind,ro "$1"
    fi
    exec 9>&-
}

while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        ro:*) fresh "${1#ro:}" ro ;;
        rw:*) fresh "${1#rw:}" rw ;;
        *=*) export "$1" ;;
    esac
    shift
done
cd "$directory" 2>/dev/null || cd /

# The shell stays for the exit status; signals are for the command.
trap : INT TERM HUP
if [ "$mode" = terminal ]; then
    echo $$ >"$note"
    "$@"
    status=$?
else
    # A process group of its own, so that a signal reaches the command and what it started. What
    # the shell has to say about a job's end is not for the command's standard error.
    exec 8>&2 2>/dev/null
    set -m
    "$@" <&0 2>&8 8>&- &
    exec 8>&-
    echo $! >"$note"
    wait $!; status=$?
    while kill -0 $! 2>/dev/null; do wait $!; status=$?; done
fi
rm -f "$note"
exit $status
