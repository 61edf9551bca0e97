#!/bin/sh
# Installs what is missing: Debian packages, then the virtual environment. Harmless when nothing is.
#   packaging/setup.sh run     what `make up` needs
#   packaging/setup.sh dev     also what `make check` and `make test` need
set -eu
cd "$(dirname "$0")/.."
extras=controller,agent,telemetry,embedded
packages=$(sed 's/#.*//' packaging/debian-packages.txt)
if [ "${1:-run}" = dev ]; then
    extras=$extras,dev
    packages="$packages $(sed 's/#.*//' packaging/debian-packages-dev.txt)"
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed$' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || { echo "Debian packages are missing, and only root can install them:$missing" >&2; exit 1; }
    echo "Installing Debian packages:$missing"
    # Without systemd no install script may start a daemon; an existing policy is left alone.
    if [ ! -d /run/systemd/system ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # A list of words on purpose.
    apt-get install -y -q --no-install-recommends $missing >.setup.log 2>&1 ||
        { apt-get update -q >>.setup.log 2>&1 && apt-get install -y -q --no-install-recommends $missing >>.setup.log 2>&1; } ||
        { tail -n 20 .setup.log >&2; echo "apt-get failed; the whole output is in .setup.log" >&2; exit 1; }
    rm -f .setup.log
fi

# noVNC's files alone: installing the package would bring a web server, Node.js and NumPy along.
if [ ! -e .cache/novnc/vnc_lite.html ] && [ ! -e /usr/share/novnc/vnc_lite.html ]; then
    echo "Fetching the console's page (Debian package novnc)"
    rm -rf .cache/novnc.new
    mkdir -p .cache/novnc.new
    if (cd .cache/novnc.new && { apt-get download -q novnc || { apt-get update -q && apt-get download -q novnc; }; }) \
        >.setup.log 2>&1 && dpkg-deb -x .cache/novnc.new/novnc_*.deb .cache/novnc.new; then
        rm -rf .cache/novnc
        mv .cache/novnc.new/usr/share/novnc .cache/novnc
        rm -f .setup.log
    else
        echo "It could not be had, so consoles have no page; .setup.log says why" >&2
    fi
    rm -rf .cache/novnc.new
fi

wanted=$( (echo "$extras"; cat pyproject.toml) | sha256sum | cut -c1-16)
stamp=.venv/.hostler-$wanted
if [ ! -e "$stamp" ]; then
    echo "Building the virtual environment (.venv)"
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install -qq --disable-pip-version-check -e ".[$extras]"
    rm -f .venv/.hostler-*
    touch "$stamp"
fi
