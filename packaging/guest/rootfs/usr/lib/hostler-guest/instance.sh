# shellcheck shell=sh
# This disk becomes that instance: host key, names, keys, size, services. Sourced by rc.cloud.

HOST_KEY=/etc/dropbear/dropbear_ed25519_host_key

# A disk that was copied from another instance has that one's id. Without metadata nobody can tell, and a
# reboot while the service is away must not take the owner's keys.
is_new_instance() {
    [ -e "$state/instance-id" ] || return 0
    [ -s "$run/instance-id" ] && ! cmp -s "$state/instance-id" "$run/instance-id"
}

remember_instance() {
    cp "$run/instance-id" "$state/instance-id"
}

ensure_host_key() {
    [ -s $HOST_KEY ] || make_host_key
}

make_host_key() {
    rm -f $HOST_KEY
    dropbearkey -t ed25519 -f $HOST_KEY >/dev/null 2>&1
}

# Nothing of a former instance may remain: neither its identity nor the keys that open it.
adopt_instance() {
    [ ! -e "$state/instance-id" ] || make_host_key
    name=$(cat "$run/hostname")
    [ -z "$name" ] || set_hostname "$name"
    for home in /root /home/cloud; do
        mkdir -p $home/.ssh
        chmod 700 $home/.ssh
        cp "$run/keys" $home/.ssh/authorized_keys
        chmod 600 $home/.ssh/authorized_keys
    done
    chown -R cloud:cloud /home/cloud/.ssh
}

set_hostname() {
    short=${1%%.*}
    echo "$short" > /etc/hostname
    hostname "$short"
    printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s %s\n' "$1" "$short" > /etc/hosts
}

# -s: keys only, no passwords. The public host key on the console lets an owner know the machine.
start_ssh() {
    dropbear -s -r $HOST_KEY && say "ssh up"
    say "host-key $(dropbearkey -y -f $HOST_KEY | sed -n 's/^\(ssh-ed25519 [^ ]*\).*/\1/p')"
}

# Both consoles' login.sh wait for a line each.
open_login() {
    : > "$run/login"
    exec 5<> "$run/login.fifo"
    printf '\n\n' >&5
}

# acpid runs the scripts of /etc/acpi. The button reports through an input device.
start_power_button() {
    modprobe -a button evdev
    acpid -l /dev/null
}

# Only in the image with the agent, and only on a machine that has its port.
start_agent() {
    [ -x /usr/bin/qemu-ga ] || return 0
    port=$(grep -l '^org.qemu.guest_agent.0$' /sys/class/virtio-ports/*/name 2>/dev/null) || return 0
    port=${port%/name}
    qemu-ga -d -m virtio-serial -p "/dev/${port##*/}" && say "agent up"
}

# The initramfs has grown the partition. The superblock counts blocks of 4 KiB, sysfs sectors of 512 bytes.
grow_root() {
    device=$(sed -n 's|^\(/dev/[^ ]*\) / .*|\1|p' /proc/mounts)
    blocks=$(od -A n -t u4 -j 1028 -N 4 "$device")
    [ $((blocks)) -ge $(($(cat "/sys/class/block/${device##*/}/size") / 8)) ] && return
    resize2fs "$device" >/dev/null 2>&1 && say "grown to $(df -h / | awk 'NR == 2 { print $2 }')"
}

# Cards and disks that are attached while the guest runs.
watch_hotplug() {
    uevent /etc/hotplug.sh >/dev/null 2>&1 &
}
