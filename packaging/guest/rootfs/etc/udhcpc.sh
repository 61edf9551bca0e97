#!/bin/sh
# What udhcpc calls when a lease comes, is renewed or lost. Facts of the lease are in the environment:
# interface, ip, mask (prefix length), router, staticroutes (option 121), mtu, dns, domain.
#
# Never flush IPv6: those addresses are the kernel's business.
run=/run/hostler-guest
. /usr/lib/hostler-guest/say.sh

# The first card's routes win where cards disagree.
metric=$(cat "/sys/class/net/${interface:?}/ifindex")

add_routes() {
    if [ -n "${staticroutes:-}" ]; then
        # RFC 3442: with classless routes, the router option is ignored.
        # shellcheck disable=SC2086 # pairs of destination and gateway
        set -- $staticroutes
        while [ $# -ge 2 ]; do
            add_route "$1" "$2"
            shift 2
        done
    else
        add_route default "${router%% *}"
    fi
}

add_route() {
    case "$2" in
        "") ;;
        0.0.0.0) ip route replace "$1" dev "$interface" metric "$metric" ;;
        *) ip route replace "$1" via "$2" dev "$interface" metric "$metric" ;;
    esac
}

write_resolv_conf() {
    {
        [ -z "${domain:-}" ] || echo "search $domain"
        for server in ${dns:-}; do
            echo "nameserver $server"
        done
    } > "$run/dns.$interface"
    cat "$run"/dns.* > "$run/resolv.conf"
}

configure() {
    [ -z "${mtu:-}" ] || ip link set "$interface" mtu "$mtu"
    # A renewal of the same address must not take it away for a moment.
    if ! ip -4 addr show dev "$interface" | grep -q " ${ip:?}/${mask:-24} "; then
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" brd + dev "$interface"
    fi
    add_routes
    write_resolv_conf
}

case "$1" in
    deconfig)
        ip link set "$interface" up
        ip -4 addr flush dev "$interface"
        rm -f "$run/lease.$interface"
        ;;
    bound)
        configure
        echo "$ip" > "$run/lease.$interface"
        say "dhcp $interface $ip/${mask:-24}"
        ;;
    renew)
        configure
        ;;
esac
