//go:build ha && linux

package ha_test

import (
	"errors"

	"github.com/retrypg/retrypg/internal/pgtest"
)

// endScript ends everything whose working directory is in or below directory $1, and removes the directory. All of a
// cluster's processes are told by that: Patroni's servers are not its children, and a server's processes overwrite their
// command line and environment. What manages servers goes first; the servers are asked to leave at once, so that they take
// their shared memory with them; what is still there after 5 s, as a process whose postmaster was killed may be, is killed.
const endScript = `
below() {
	ls -ld /proc/[0-9]*/cwd | sed -n 's|.* /proc/\([0-9]*\)/cwd -> \(/.*\)|\1 \2|p' |
		while read -r p d; do
			case "$d" in "$1"|"$1"/*) echo "$p $d";; esac
		done
}
n=0
while [ $n -lt 200 ]; do
	found=
	while read -r p d; do
		[ -n "$p" ] || continue
		found=yes
		case "$d" in
		*/data)
			kill -CONT "$p"
			[ $n -gt 0 ] && [ $n -lt 100 ] && continue
			read -r q <"$d/postmaster.pid" || q=
			if [ $n -ge 100 ]; then kill -KILL "$p"; elif [ "$p" = "$q" ]; then kill -QUIT "$p"; fi ;;
		*) kill -KILL "$p" ;;
		esac
	done <<END
$(below "$1")
END
	[ -z "$found" ] && break
	sleep 0.05
	n=$((n+1))
done 2>/dev/null
for f in "$1"/*/data/postmaster.pid; do
	[ -f "$f" ] && set -- "$1" $(sed -n 7p "$f") && [ $# -eq 3 ] && ipcrm -m "$3"
done 2>/dev/null
rm -rf "$1"
`

// newGuard makes a directory for a cluster, in which the server's user may write.
func newGuard() (*pgtest.Guard, error) {
	g, err := pgtest.NewGuard("retrypg-ha-", endScript)
	if err != nil {
		return nil, err
	}
	if err := pgtest.GiveToServer(g.Dir()); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}
