# shellcheck shell=sh
# Drivers and network cards. Sourced by rc.cloud and hotplug.sh.

LEASE_LIMIT_S=30 # uptime after which user-data runs even without a network

# Modules for the devices that this machine has, and no others.
load_drivers() {
    # shellcheck disable=SC2046 # one word a module
    modprobe -a $(cat /sys/bus/virtio/devices/*/modalias) 2>/dev/null
}

# A client a card, each in the background: a card without a server must not hold up the others.
start_dhcp() {
    for device in /sys/class/net/*; do
        start_dhcp_on "${device##*/}"
    done
}

# IPv6 needs no client: the kernel configures itself by router advertisements once the link is up.
start_dhcp_on() {
    [ -e "/sys/class/net/$1/device" ] || return 0
    # busybox asks for classless routes (option 121) and the MTU only when told to.
    udhcpc -b -i "$1" -t 8 -T 1 -A 2 -O staticroutes -O mtu -p "/run/udhcpc.$1.pid" -s /etc/udhcpc.sh >/dev/null 2>&1 &
}

has_lease() {
    for lease in "$run"/lease.*; do
        [ -e "$lease" ] && return 0
    done
    return 1
}

wait_for_lease() {
    until has_lease || past $LEASE_LIMIT_S; do
        usleep 50000
    done
}
