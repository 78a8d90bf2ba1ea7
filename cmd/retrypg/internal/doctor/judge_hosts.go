package doctor

import "fmt"

// judgeHosts adds what only all hosts together tell.
func (d *Doctor) judgeHosts(all []examined, r *Report) {
	var reached, primaries, standbys []*examined
	for i := range all {
		e := &all[i]
		switch {
		case e.facts == nil:
			continue
		case e.report.Role == "primary":
			primaries = append(primaries, e)
		case e.report.Role == "standby":
			standbys = append(standbys, e)
		}
		reached = append(reached, e)
	}
	if len(reached) == 0 {
		r.add(Problem, "hosts", "no host can be connected to", "see the hosts")
		return
	}
	role := d.target.role()
	missing := ""
	switch role {
	case "read-write", "primary":
		if len(primaries) == 0 {
			missing = "primary"
		}
	case "standby":
		if len(standbys) == 0 {
			missing = "standby"
		}
	}
	if missing != "" {
		r.add(Problem, "target_session_attrs", fmt.Sprintf("%s, and no host that answers is a %s: retrypg waits for one", role, missing),
			"name such a host in the DSN, or promote one")
	}
	d.judgeSystems(reached, r)
	d.judgePrimaries(primaries, r)
	d.judgeRole(role, all, standbys, r)
}

// judgeSystems compares the clusters of the hosts.
func (d *Doctor) judgeSystems(reached []*examined, r *Report) {
	for _, e := range reached[1:] {
		first, other := reached[0].facts.identity, e.facts.identity
		if first.Known() && other.Known() && first.System != other.System {
			r.add(Problem, "hosts", fmt.Sprintf("%s and %s are not of the same cluster (system identifiers %s and %s): data would be here or there",
				reached[0].host, e.host, first.System, other.System), "name the hosts of one cluster")
			return
		}
	}
}

// judgePrimaries looks for two primaries of one cluster, which a failover that went wrong leaves behind. One primary may
// have two names: it has then one start and one timeline.
func (d *Doctor) judgePrimaries(primaries []*examined, r *Report) {
	for i, e := range primaries {
		for _, o := range primaries[:i] {
			one, two := e.facts.identity, o.facts.identity
			if one.Known() && one.System == two.System && (one.Timeline != two.Timeline || !one.Epoch.Same(two.Epoch)) {
				r.add(Problem, "hosts", fmt.Sprintf("%s and %s both are primaries of the same cluster: what one of them confirms the other does not have",
					o.host, e.host), "stop one of them, and make it a standby again")
				return
			}
		}
	}
}

// judgeRole looks at target_session_attrs.
func (d *Doctor) judgeRole(role string, all []examined, standbys []*examined, r *Report) {
	switch {
	case len(all) > 1 && role == "any":
		level, text := Note, "several hosts and no target_session_attrs: a host that becomes a standby is connected to as well, and writes fail there with 25006"
		if len(standbys) > 0 {
			level, text = Warning, fmt.Sprintf("several hosts and no target_session_attrs: %s is a standby, and is connected to as well; writes fail there with 25006", standbys[0].host)
		}
		r.add(level, "target_session_attrs", text, "give target_session_attrs=read-write, or prefer-standby for what only reads")
		r.change("target_session_attrs", "read-write", "there are several hosts")
	case len(all) == 1 && len(standbys) == 1 && role == "any":
		r.add(Note, "target_session_attrs", "the only host is a standby: writes fail with 25006", "name the primary where the program writes")
	case role != "any":
		r.add(OK, "target_session_attrs", role, "")
	}
	if len(all) == 1 {
		r.add(Note, "hosts", "there is one host: after a failover retrypg waits until this name leads to the new primary",
			"name all hosts that may become the primary, unless the address moves with it")
	}
}
