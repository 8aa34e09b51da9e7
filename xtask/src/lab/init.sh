#!/bin/busybox sh
# PID 1 of the lab until its root is mounted: loads the modules, mounts the host's root read-only
# through 9p with a layer in memory over it, and continues in there. The lab's own files, which came
# in this archive, move to /run/lab, so that they don't change when the host's do.
B=/bin/busybox
fail() { echo "lab: $1"; $B sync; $B poweroff -f; }

$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
while read -r module; do
    $B insmod "/lib/hearth/modules/$module" || echo "lab: cannot load $module"
done </lib/hearth/modules/order

$B mkdir -p /host /layer /new
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /host ||
    fail "cannot mount the host's root"
$B mount -t tmpfs -o mode=755 layer /layer; $B mkdir /layer/upper /layer/work
$B mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /new ||
    fail "cannot lay memory over the host's root"
for dir in dev proc sys run tmp; do $B mkdir -p /new/$dir; done
for dir in dev proc sys; do $B mount --move /$dir /new/$dir; done
$B mount -t tmpfs -o mode=755 run /new/run; $B mount -t tmpfs -o mode=1777 tmp /new/tmp
$B mkdir -p /new/dev/pts /new/dev/shm
$B mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /new/dev/pts
$B mount -t tmpfs -o mode=1777 shm /new/dev/shm
$B mount -t cgroup2 cgroup /new/sys/fs/cgroup

$B mkdir -m 700 /new/run/lab; $B cp -a /lab/. /new/run/lab; $B cp $B /new/run/lab/busybox
# What the host edits is seen at once beneath this mount; sessions bind what they need from it.
$B mkdir -m 700 /new/run/lab/host
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=none fresh /new/run/lab/host ||
    fail "cannot mount the host's directories"
$B mkdir -p /new/var/lib/hearth
$B mount -t ext4 -o noatime /new/dev/vda /new/var/lib/hearth || fail "cannot mount the disk for state"
exec $B switch_root /new /run/lab/busybox sh /run/lab/main
