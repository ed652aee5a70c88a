#!/bin/sh
# The first process of a test's server: opens what the engine mounts read-only for a container without all privileges, and becomes systemd.

mount -o remount,bind,rw /sys 2>/dev/null
mount -o remount,rw /sys/fs/cgroup 2>/dev/null
for mount in /sys/fs/cgroup/*; do
    if mountpoint -q "$mount"; then mount -o remount,bind,rw "$mount"; fi
done
device() {
    mkdir -p "$(dirname "/dev/$1")"
    if [ ! -e "/dev/$1" ]; then mknod "/dev/$1" c "$2" "$3"; fi
}
device fuse 10 229
device net/tun 10 200
# For tests that count them.
echo boot >>/var/log/boots
# Systemd of 2024 and later starts on cgroup v1 only where it is told to. In a container these words are its kernel's command line.
exec /sbin/init systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
