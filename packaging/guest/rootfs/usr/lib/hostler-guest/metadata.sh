# shellcheck shell=sh
# Who am I: the config drive, else the metadata service in OpenStack's layout, else in EC2's. Sourced by rc.cloud.
#
# Whatever the source, the answer is the same files in $run:
#   source        drive | openstack | ec2 | none
#   instance-id   hostname   keys   user-data     (empty where there is none)

SERVICE=http://169.254.169.254
METADATA_LIMIT_S=60 # uptime after which the guest goes on without metadata
GET_LIMIT_S=5       # one request; a service that is being set up may swallow it

find_metadata() {
    : > "$run/instance-id"
    : > "$run/hostname"
    : > "$run/keys"
    : > "$run/user-data"
    source=none
    if read_config_drive; then
        source=drive
    else
        ask_service
    fi
    echo $source > "$run/source"
}

# --- config drive ---------------------------------------------------------------------------------------

# Any disk or CD-ROM whose ISO 9660 or FAT file system is labelled config-2.
read_config_drive() {
    has_second_disk || return 1
    drive=$(findfs LABEL=config-2 2>/dev/null || findfs LABEL=CONFIG-2 2>/dev/null) || return 1
    mount -t iso9660 -o ro "$drive" /mnt/config 2>/dev/null || mount -t vfat -o ro "$drive" /mnt/config || return 1
    latest=/mnt/config/openstack/latest
    read_meta_data_json $latest/meta_data.json || return 1
    [ ! -e $latest/user_data ] || cp $latest/user_data "$run/user-data"
}

has_second_disk() {
    # A CD-ROM needs its driver; the SCSI host's came with the other devices'.
    [ ! -d /sys/bus/scsi ] || modprobe sr_mod
    # shellcheck disable=SC2046 # counted by words
    set -- $(ls /sys/block)
    [ $# -gt 1 ]
}

# --- metadata service -----------------------------------------------------------------------------------

ask_service() {
    until past $METADATA_LIMIT_S; do
        if ! has_lease; then
            usleep 50000
        elif ask_in_openstack_layout; then
            source=openstack
            return
        elif ask_in_ec2_layout; then
            source=ec2
            return
        else
            sleep 1
        fi
    done
}

ask_in_openstack_layout() {
    get openstack/latest/meta_data.json > "$run/meta_data.json" || return 1
    read_meta_data_json "$run/meta_data.json" || return 1
    get openstack/latest/user_data > "$run/user-data" || : > "$run/user-data"
}

ask_in_ec2_layout() {
    get latest/meta-data/instance-id > "$run/instance-id" || return 1
    [ -s "$run/instance-id" ] || return 1
    get latest/meta-data/hostname > "$run/hostname" || : > "$run/hostname"
    # The list says `0=name`, a line a key.
    for key in $(get latest/meta-data/public-keys/); do
        get "latest/meta-data/public-keys/${key%%=*}/openssh-key"
        echo
    done > "$run/keys"
    get latest/user-data > "$run/user-data" || : > "$run/user-data"
}

# Body of a document on standard output; false when the service has none. Only a time-out is tried again:
# busybox's wget does not tell 404 from other refusals. (Its own -T crashes in Debian 12's build.)
get() {
    for _ in 1 2 3; do
        timeout $GET_LIMIT_S wget -q -O - "$SERVICE/$1" 2>/dev/null
        status=$?
        [ $status -eq 143 ] || [ $status -eq 124 ] || return $status
    done
    return 1
}

# --- OpenStack's meta_data.json -------------------------------------------------------------------------

read_meta_data_json() {
    awk -f "$lib/json.awk" "$1" > "$run/meta_data.flat" 2>/dev/null || return 1
    values_of uuid > "$run/instance-id"
    values_of hostname > "$run/hostname"
    values_of 'public_keys/[^	]*' > "$run/keys"
    [ -s "$run/instance-id" ]
}

values_of() {
    sed -n "s|^$1	||p" "$run/meta_data.flat"
}
