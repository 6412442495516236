# What the guest runs, as root, on the host's root file system: the rest of the
# mounts, the command, and what the host wants to see afterwards.
# $1: the folder of this run, in which the host has put `command` and `dir`.
# Sparing with programs: in an emulated guest each costs a noticeable time.
run=$1
exec </dev/null

# /tmp is the host's: what is temporary in the guest stays in the guest. Not in /run
# itself, which is a tmpfs as well, but nosuid.
umask 022
mkdir -p /dev/pts /dev/shm /run/tmp
mount -t tmpfs -o mode=1777 tmp /run/tmp
export TMPDIR=/run/tmp
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts &
mount -t bpf bpf /sys/fs/bpf &
ln -s /proc/self/fd/0 /dev/stdin &
ln -s /proc/self/fd/1 /dev/stdout &
ln -s /proc/self/fd/2 /dev/stderr &
ip link set lo up &
wait
ulimit -n 1048576
ulimit -l unlimited
read -r booted _ </proc/uptime
echo "$booted" >"$run/booted"

cd "$(<"$run/dir")" || exit
bash -c "$(<"$run/command")" >"$run/out" 2>"$run/err"
status=$?

dmesg >"$run/dmesg"
if [ -e /proc/lockdep_stats ]; then
	cat /proc/lockdep_stats >"$run/lockdep_stats"
fi
sync
echo "$status" >"$run/status"
