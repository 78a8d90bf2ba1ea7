#!/usr/bin/env bash
# Starts a streaming standby: clones the primary that PRIMARY names, anew at
# each start, so that whatever became of either of them before does not matter,
# and runs the server with the given arguments. As root it becomes postgres
# first, as the image's own entry point does.
set -euo pipefail

: "${PRIMARY:?give the connection string of the primary, such as host=primary user=postgres}"
: "${PGDATA:?give the data directory, which is emptied}"

if [ "$(id -u)" -eq 0 ]; then
	mkdir -p "$PGDATA"
	chown -R postgres:postgres "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH" "$0" "$@"
fi

mkdir -p "$PGDATA"
chmod 0700 "$PGDATA"
until
	find "$PGDATA" -mindepth 1 -delete
	# -R writes standby.signal and primary_conninfo.
	pg_basebackup --dbname="$PRIMARY application_name=standby" --pgdata="$PGDATA" --wal-method=stream --checkpoint=fast --write-recovery-conf
do
	echo "standby: the primary cannot be cloned yet; again in a second" >&2
	sleep 1
done
exec postgres "$@"
