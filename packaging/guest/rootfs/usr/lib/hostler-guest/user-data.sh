# shellcheck shell=sh
# The owner's wishes: a script, or the small part of #cloud-config that cloud-config.awk reads. Sourced.

# A line that no script prints by chance; what follows it is the exit status.
END=$(printf '\001')end:

run_user_data() {
    case "$(head -n 1 "$run/user-data" | tr -d '\0')" in
        '') ;;
        '#!'*) run_script "$run/user-data" ;;
        '#cloud-config'*) apply_cloud_config ;;
        *) say "user-data ignored: it begins with neither #! nor #cloud-config" ;;
    esac
}

# The script's output goes to the console line by line. It goes through a pipe that outlives the script, since
# what the script leaves running in the background may hold on to it: neither may such a program keep the boot
# waiting, nor may it be killed by its next line of output.
run_script() {
    chmod 700 "$1"
    mkfifo -m 600 "$run/output"
    exec 4<> "$run/output"
    relay_output < "$run/output" 4>&- &
    "$1" < /dev/null > "$run/output" 2>&1 4>&-
    printf '%s%s\n' "$END" $? >&4
    exec 4>&-
    until [ -e "$run/user-data.exit" ]; do
        usleep 20000
    done
}

relay_output() {
    while IFS= read -r line; do
        case "$line" in
            *"$END"*)
                [ -z "${line%%"$END"*}" ] || print_line "user-data: ${line%%"$END"*}"
                say "user-data exit ${line##*"$END"}"
                echo "${line##*"$END"}" > "$run/user-data.exit"
                ;;
            *) print_line "user-data: $line" ;;
        esac
    done
}

# --- #cloud-config --------------------------------------------------------------------------------------

# The awk program turns the document into calls of the functions below, their arguments quoted.
apply_cloud_config() {
    printf '#!/bin/sh\n' > "$run/runcmd"
    awk -f "$lib/cloud-config.awk" "$run/user-data" > "$run/cloud-config.sh"
    . "$run/cloud-config.sh"
    run_script "$run/runcmd"
}

add_key() {
    for home in /root /home/cloud; do
        echo "$1" >> $home/.ssh/authorized_keys
    done
}

# write_file PATH CONTENT PERMISSIONS OWNER ENCODING APPEND; all but the first two may be empty.
write_file() {
    mkdir -p "$(dirname "$1")"
    [ "$6" = true ] || : > "$1"
    case "$5" in
        b64 | base64) printf '%s' "$2" | base64 -d >> "$1" ;;
        '' | text/plain) printf '%s' "$2" >> "$1" ;;
        *) say "cloud-config: $1: encoding $5 is not known here" ;;
    esac
    chmod "${3:-644}" "$1"
    [ -z "$4" ] || chown "$4" "$1"
}

add_command() {
    printf '%s\n' "$1" >> "$run/runcmd"
}

ignored() {
    say "cloud-config: $1 is not known here"
}
