#!/usr/bin/env bash
# Installs what the tests talk to, on Debian as root: Postfix, swaks, FreeRADIUS
# and a C compiler for the race detector as packages; Exim unpacked into
# .cache/exim, since its package and Postfix's exclude each other. Nothing that
# is installed is started.
#
# Never fails: what could not be had is said in lines "left out: …", which are
# also added to the file given as argument, and the tests that need it skip.
set -uo pipefail
cd "$(dirname "$0")/.."
steps=${1:-/dev/null}
root=$PWD
exim=$root/.cache/exim
policy=/usr/sbin/policy-rc.d

# binary → package, and what is not tested without it
needs=(
	"cc gcc the race detector"
	"/usr/include/stdlib.h libc6-dev the race detector"
	"/usr/sbin/postfix postfix deliveries to and from a real Postfix"
	"/usr/sbin/smtp-source postfix load from smtp-source"
	"swaks swaks mail sent by swaks"
	"perl:Net::SSLeay libnet-ssleay-perl swaks through STARTTLS"
	"radclient freeradius-utils RADIUS events from radclient"
	"freeradius freeradius RADIUS events through FreeRADIUS"
	"/usr/lib/freeradius/rlm_rest.so freeradius-rest FreeRADIUS calling the HTTP hook"
)

has() {
	case $1 in
	/*) [ -e "$1" ] ;;
	perl:*) perl -M"${1#perl:}" -e 1 2>/dev/null ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

left_out() {
	echo "left out: $1"
	echo "out $1" >>"$steps"
}

missing() {
	for need in "${needs[@]}"; do
		read -r file package _ <<<"$need"
		has "$file" || echo "$package"
	done | sort -u
}

# A machine that forbids starting services itself keeps its own policy.
made=
may_start_again() {
	if [ -n "$made" ]; then
		rm -f $policy
		made=
	fi
}

install() { # install PACKAGE…, with no service started
	if [ ! -e $policy ]; then
		made=yes
		printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
	fi
	echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections 2>/dev/null
	apt-get install -y -q --no-install-recommends "$@" </dev/null >"$log" 2>&1
	local status=$?
	may_start_again
	if [ $status -ne 0 ]; then
		echo "apt-get install $* failed; its last lines:"
		tail -n 5 "$log"
	fi
	return $status
}

linked() { # linked BINARY: all its libraries are there
	local libraries
	libraries=$(ldd "$1" 2>/dev/null) && ! grep -q 'not found' <<<"$libraries"
}

unpack_exim() {
	local dir
	dir=$(mktemp -d)
	# apt's own user must be able to write here.
	chmod 755 "$dir"
	(
		cd "$dir" && apt-get download -q exim4-daemon-light exim4-base &&
			for deb in *.deb; do dpkg -x "$deb" tree || exit 1; done
	) >"$log" 2>&1
	if [ ! -x "$dir/tree/usr/sbin/exim4" ]; then
		echo "apt-get download exim4-daemon-light failed; its last lines:"
		tail -n 5 "$log"
		rm -rf "$dir"
		return 1
	fi
	# Its libraries come as packages, which conflict with nothing.
	if ! linked "$dir/tree/usr/sbin/exim4"; then
		install $(apt-cache depends --important exim4-daemon-light | sed -nE 's/^ *Depends: (lib[a-z0-9.+-]+)$/\1/p')
	fi
	# Debian's Exim does not start without its user, which its package makes.
	getent passwd Debian-exim >/dev/null ||
		useradd --system --user-group --no-create-home --home-dir /var/spool/exim4 --shell /usr/sbin/nologin Debian-exim
	mkdir -p "$root/.cache" && rm -rf "$exim" && mv "$dir/tree" "$exim"
	rm -rf "$dir"
}

runs_exim() { [ -x "$exim/usr/sbin/exim4" ] && "$exim/usr/sbin/exim4" -C /dev/null -bV >/dev/null 2>&1; }

log=$(mktemp)
trap 'rm -f "$log"; may_start_again' EXIT
trap 'exit 130' INT TERM
export DEBIAN_FRONTEND=noninteractive

if ! command -v apt-get >/dev/null; then
	echo "this is not Debian: nothing is installed"
elif [ "$(id -u)" != 0 ]; then
	echo "not root: nothing is installed"
else
	want=$(missing)
	if [ -n "$want" ] || ! runs_exim; then
		apt-get update -q >"$log" 2>&1 || tail -n 3 "$log"
	fi
	if [ -n "$want" ]; then
		echo "installing" $want
		# One package that cannot be had must not keep the others away.
		if ! install $want ca-certificates; then
			for package in $want; do install "$package"; done
		fi
	fi
	if ! runs_exim; then
		echo "unpacking exim into .cache/exim"
		unpack_exim
	fi
fi

for need in "${needs[@]}"; do
	read -r file package what <<<"$need"
	has "$file" || left_out "$what: no $file here (Debian package $package)"
done
runs_exim || left_out "deliveries to a real Exim: no .cache/exim/usr/sbin/exim4 (Debian package exim4-daemon-light, unpacked)"
exit 0
