#!/bin/sh
# Called for every device event after the boot: a driver for what arrives, an address for a new card.
run=/run/hostler-guest
. /usr/lib/hostler-guest/network.sh

[ "${ACTION:-}" = add ] || exit 0
[ -z "${MODALIAS:-}" ] || modprobe "$MODALIAS" 2>/dev/null
[ "${SUBSYSTEM:-}" != net ] || start_dhcp_on "${INTERFACE:?}"
