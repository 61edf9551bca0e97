#!/bin/sh
# Console login, after the boot's last line. No account has a password, so the prompt is a sign of life unless
# user-data sets one.
LIMIT_S=10 # then the prompt comes anyway: user-data that takes its time, no network

run=/run/hostler-guest
[ ! -e $run/stopping ] || exec sleep 60
[ -e $run/login ] || read -r -t $LIMIT_S _ <> $run/login.fifo
: > $run/login
exec getty "$@"
