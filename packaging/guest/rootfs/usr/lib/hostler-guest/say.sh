# shellcheck shell=sh
# Progress on the console. Sourced.

# A line for people and tests: hostler-guest: <uptime in s> <words>
say() {
    read -r uptime _ < /proc/uptime
    print_line "hostler-guest: $uptime $*"
}

# After the login prompt a line begins with a new line, or it would continue the prompt's.
print_line() {
    if [ -e "$run/login" ]; then
        printf '\n%s\n' "$1" > /dev/console
    else
        printf '%s\n' "$1" > /dev/console
    fi
    printf '%s\n' "$1" >> "$run/log"
}

# past SECONDS: whether the machine is up for that long.
past() {
    read -r uptime _ < /proc/uptime
    [ "${uptime%.*}" -ge "$1" ]
}
