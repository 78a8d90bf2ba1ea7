#!/bin/sh
# Entry point of the image that is made where none can be pulled. It knows of
# the official image's interface what a test needs: POSTGRES_USER,
# POSTGRES_PASSWORD, POSTGRES_DB, PGDATA, arguments that start with a dash, and
# the two starts of the first run, by whose two "ready to accept connections"
# lines a test sees that the database is there. It runs as the server's user.
set -eu

case "${1:-postgres}" in
-*) set -- postgres "$@" ;;
esac

: "${POSTGRES_USER:=postgres}"
: "${POSTGRES_DB:=$POSTGRES_USER}"
: "${POSTGRES_PASSWORD:=}"

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	auth=trust
	if [ -n "$POSTGRES_PASSWORD" ]; then
		auth=scram-sha-256
		(umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password)
	fi
	initdb -D "$PGDATA" -U "$POSTGRES_USER" -E UTF8 --locale=C \
		--auth-local=trust --auth-host="$auth" ${POSTGRES_PASSWORD:+--pwfile=/tmp/password}
	rm -f /tmp/password
	printf 'host all all all %s\n' "$auth" >>"$PGDATA/pg_hba.conf"
	printf "listen_addresses = '*'\nunix_socket_directories = '/tmp'\n" >>"$PGDATA/postgresql.conf"
	if [ "$POSTGRES_DB" != postgres ]; then
		printf 'CREATE DATABASE "%s"\n' "$POSTGRES_DB" | postgres --single -D "$PGDATA" postgres >/dev/null
	fi
	pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
	pg_ctl -D "$PGDATA" -w -m fast stop
fi

exec "$@"
