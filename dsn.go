package retrypg

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/retrypg/retrypg/breaker"
)

// parseDSN reads everything that pgx.ParseConfig reads (URL or keyword/value, service files, several hosts, PG*
// variables; the empty DSN is those variables alone) and our keys. The configuration has none of our keys left in
// RuntimeParams. The settings hold only what the DSN says: defaults are not filled in, but as if they were, the whole was
// validated. No error holds a password or the DSN: wrong keys and what pgx cannot parse are *DSNError.
func parseDSN(dsn string) (*pgx.ConnConfig, settings, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, settings{}, sanitised(err)
	}
	s, err := settingsOf(cfg, dsn)
	if err != nil {
		return nil, settings{}, err
	}
	cfg.DialFunc = nil // pgx's default; configure puts ours in its place
	return cfg, s, nil
}

// parsePoolDSN is parseDSN for pgxpool, whose pool_* keys it understands too.
func parsePoolDSN(dsn string) (*pgxpool.Config, settings, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, settings{}, sanitised(err)
	}
	s, err := settingsOf(cfg.ConnConfig, dsn)
	if err != nil {
		return nil, settings{}, err
	}
	cfg.ConnConfig.DialFunc = nil // as in parseDSN
	return cfg, s, nil
}

func settingsOf(cfg *pgx.ConnConfig, dsn string) (settings, error) {
	var s settings
	if err := takeKeysHiding(cfg.RuntimeParams, dsn, &s, cfg.Password); err != nil {
		return settings{}, err
	}
	if err := s.withDefaults().validate(); err != nil {
		return settings{}, err
	}
	return s, nil
}

// takeKeys moves our keys out of params, the RuntimeParams of a configuration that pgx made from dsn, into s. dsn is
// needed to see keys that it gives twice, of which pgx keeps the last only. All that is wrong is reported at once, each
// thing as a *DSNError; params is then without our keys too, and s is partly filled.
func takeKeys(params map[string]string, dsn string, s *settings) error {
	return takeKeysHiding(params, dsn, s)
}

// takeKeysHiding is takeKeys that keeps more secrets than those it finds in dsn and environment out of its errors, such
// as a password that came from a file.
func takeKeysHiding(params map[string]string, dsn string, s *settings, secrets ...string) error {
	given, ambiguous := dsnPairs(dsn)
	counts := make(map[string]int)
	for _, g := range given {
		counts[g.Key]++
		if g.Key == "password" || g.Key == "sslpassword" {
			secrets = append(secrets, g.Value)
		}
	}
	secrets = append(secrets, os.Getenv("PGPASSWORD"), os.Getenv("PGSSLPASSWORD"))

	var errs []error
	wrong := func(e *DSNError) {
		e.hide(secrets, ambiguous)
		errs = append(errs, e)
	}
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		if counts[k] > 1 && (dsnKeyNamed(k) != nil || misspelt(k)) {
			wrong(&DSNError{Key: k, Problem: "is given twice; give it once"})
		}
	}
	values := make(map[string]string) // by the table's name of the key
	for i := range dsnKeys {
		k := &dsnKeys[i]
		name, err := k.pick(params, counts)
		if err != nil {
			wrong(err)
			continue
		}
		if name == "" {
			continue
		}
		values[k.name] = params[name]
		if allowed := k.parse(s, params[name]); allowed != "" {
			wrong(&DSNError{Key: name, Value: params[name], Allowed: allowed, Nearest: nearestValue(params[name], k.words)})
		}
	}
	if _, ok := values["breaker_failures"]; !ok {
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if strings.HasPrefix(k, "breaker_") {
				wrong(&DSNError{Key: k, Problem: "has no effect without breaker_failures; add breaker_failures=" + strconv.Itoa(breaker.DefaultFailures) + " or remove it"})
			}
		}
	}
	if s.budgetOff {
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if strings.HasPrefix(k, "retry_budget_") {
				wrong(&DSNError{Key: k, Problem: "has no effect with retry_budget=off; remove one of them"})
			}
		}
	}
	if s.initialDelay > s.maxDelay && s.maxDelay > 0 {
		wrong(&DSNError{Key: "retry_initial_delay", Problem: "is longer than retry_max_delay; make it equal or shorter"})
	}
	for _, k := range slices.Sorted(maps.Keys(params)) {
		ours := dsnKeyNamed(k) != nil
		if !ours && misspelt(k) {
			ours = true
			wrong(&DSNError{Key: k, Problem: "is not known", Nearest: nearestKey(k)})
		}
		if ours {
			delete(params, k)
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// pick returns the name under which the key is in params, and "" where it is not. A key with several spellings may be in
// the service file under one and in the DSN under another: the DSN wins, as it does for one spelling.
func (k *dsnKey) pick(params map[string]string, inDSN map[string]int) (string, *DSNError) {
	var found []string
	for _, name := range append([]string{k.name}, k.aliases...) {
		if _, ok := params[name]; ok {
			found = append(found, name)
		}
	}
	if len(found) > 1 {
		if named := slices.DeleteFunc(slices.Clone(found), func(n string) bool { return inDSN[n] == 0 }); len(named) > 0 {
			found = named
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", &DSNError{Key: found[0], Problem: "is the same as " + found[1] + ", which is given too; give one of them"}
}

// misspelt is true for a key that is none of ours and meant to be one: by its prefix, or because it is at most two slips
// away from one. Keys with a dot belong to extensions of the server.
func misspelt(key string) bool {
	if dsnKeyNamed(key) != nil || slices.Contains(serverKeys, key) || strings.Contains(key, ".") {
		return false
	}
	lower := strings.ToLower(key)
	for _, prefix := range []string{"retry_", "breaker_", "tcp_keepalive", "tcp_user_", "tcp_server_"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	_, slips := nearest(lower, dsnKeyNames())
	return slips <= 2
}

func nearestKey(key string) string {
	name, _ := nearest(strings.ToLower(key), dsnKeyNames())
	return name
}

// nearestValue is the word meant by a value that is at most half wrong, and "" where there is none.
func nearestValue(value string, words []string) string {
	word, slips := nearest(strings.ToLower(strings.TrimSpace(value)), words)
	if slips > len(word)/2 {
		return ""
	}
	return word
}
