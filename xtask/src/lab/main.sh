# PID 1 of the lab once its root is there: network, cgroups, the listener for commands; then it
# reaps what lost its parent. It runs in busybox, so that no change of the host's files touches it.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
cd /
. /run/lab/settings
hostname lab
# The first CPU runs no guest: Qemu::cpus says why. All that is started here inherits it.
cpus=$(nproc)
[ "$cpus" -gt 1 ] && taskset -pc "1-$((cpus - 1))" $$ >/dev/null
ulimit -n 65536
# A user's own lab can't read root's home or shadow on the host: it gets empty ones.
ls /root >/dev/null 2>&1 || mount -t tmpfs -o mode=700 root /root
echo 'root:*:19000:0:99999:7:::' >/run/lab/shadow; chmod 600 /run/lab/shadow
mount --bind /run/lab/shadow /etc/shadow
# Under sshd bash would read root's .bashrc for each command, which is slow on an emulated CPU.
sed 's|^root:.*|root:x:0:0:root:/root:/bin/sh|' /etc/passwd >/run/lab/passwd
mount --bind /run/lab/passwd /etc/passwd
mkdir -p /lib/modules; mount --bind "/run/lab/host$MODULES" /lib/modules
ip link set lo up
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
mkdir -p /run/lab/sessions
mkdir -p -m 700 /root/.ssh; chmod 700 /root/.ssh
cp /run/lab/authorized_keys /root/.ssh/authorized_keys; chmod 600 /root/.ssh/authorized_keys
dropbear -R -s -g -r /run/lab/host_key -p 10.0.2.15:22 -P /run/lab/dropbear.pid
echo "lab: ready"
while :; do sleep 3600 & wait $!; done
