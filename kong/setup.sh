#!/bin/sh
# Prepares the database of the local stack, and can be run again: Kong's tables, then kong.yml.
# ADMIN_API_URL is where the Service of kong.yml is to point.
set -eu

case $(kong version) in
*Enterprise*)
	if [ -z "${KONG_LICENSE_DATA:-}" ]; then
		echo "setup: set KONG_LICENSE_DATA to the text of your licence: Kong Enterprise has no audit log without one" >&2
		exit 1
	fi
	;;
esac

kong migrations bootstrap
kong migrations up
kong migrations finish
kong prepare # kong config asks for a prefix that has been prepared
sed "s#http://127.0.0.1:8001#$ADMIN_API_URL#" /etc/kong/kong.yml >/tmp/kong.yml
kong config db_import /tmp/kong.yml
