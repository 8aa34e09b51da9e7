# boots HEARTH FIRECRACKER IMAGES COUNT
# Boots COUNT guests with two CPUs each, two at a time, and prints a line for each that ran its
# command. Both loops go through a daemon, as the guests of users do.
hearth=$1 firecracker=$2 images=$3 count=$4
state=/var/lib/hearth/boots
export HEARTH_URL=unix:///run/boots.sock
rm -rf "$state"; mkdir -p "$state"; echo '[]' >"$state/none.exs"
"$hearth" serve --listen "$HEARTH_URL" --state-dir "$state/state" --desired "$state/none.exs" \
    --images "$images" --firecracker "$firecracker" 2>"$state/log" &
daemon=$!
until "$hearth" ps >/dev/null 2>&1; do sleep 0.5; kill -0 $daemon || { cat "$state/log"; exit 1; }; done
boot() {
    "$hearth" run --rm --wait --rootfs rootfs-test.ext4 --vcpu 2 --mem 128 -- /bin/true \
        >"$state/out.$1" 2>&1 && echo "booted $1" || cat "$state/out.$1"
}
boots() { # FROM
    n=$1
    while [ "$n" -le "$count" ]; do boot "$n"; n=$((n + 2)); done
}
boots 1 & one=$!
boots 2 & wait $! $one
kill $daemon; wait $daemon
rm -rf "$state"
