package retrypg

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retrypg/retrypg/internal/outcome"
)

// roles are the target_session_attrs that pgx knows, by the function that checks each.
var roles = map[uintptr]string{
	codeOf(pgconn.ValidateConnectTargetSessionAttrsReadWrite):     "read-write",
	codeOf(pgconn.ValidateConnectTargetSessionAttrsReadOnly):      "read-only",
	codeOf(pgconn.ValidateConnectTargetSessionAttrsPrimary):       "primary",
	codeOf(pgconn.ValidateConnectTargetSessionAttrsStandby):       "standby",
	codeOf(pgconn.ValidateConnectTargetSessionAttrsPreferStandby): "prefer-standby",

	codeOf(identifyReadWrite): "read-write",
	codeOf(identifyReadOnly):  "read-only",
	codeOf(identifyPrimary):   "primary",
	codeOf(identifyStandby):   "standby",
}

// identifying are the functions that check a role by who the server says it is, which is asked of each new connection anyway:
// one round trip in place of two. An error of prefer-standby only pgx can make.
var identifying = map[string]pgconn.ValidateConnectFunc{
	"read-write": identifyReadWrite,
	"read-only":  identifyReadOnly,
	"primary":    identifyPrimary,
	"standby":    identifyStandby,
}

func identifyReadWrite(ctx context.Context, pc *pgconn.PgConn) error {
	return identifyRole(ctx, pc, pgconn.ValidateConnectTargetSessionAttrsReadWrite, func(id *outcome.Identity) error {
		if id.Standby || id.ReadOnly {
			return pgconn.ErrReadOnlyConnection
		}
		return nil
	})
}

func identifyReadOnly(ctx context.Context, pc *pgconn.PgConn) error {
	return identifyRole(ctx, pc, pgconn.ValidateConnectTargetSessionAttrsReadOnly, func(id *outcome.Identity) error {
		if !id.Standby && !id.ReadOnly {
			return pgconn.ErrReadWriteConnection
		}
		return nil
	})
}

func identifyPrimary(ctx context.Context, pc *pgconn.PgConn) error {
	return identifyRole(ctx, pc, pgconn.ValidateConnectTargetSessionAttrsPrimary, func(id *outcome.Identity) error {
		if id.Standby {
			return pgconn.ErrStandbyConnection
		}
		return nil
	})
}

func identifyStandby(ctx context.Context, pc *pgconn.PgConn) error {
	return identifyRole(ctx, pc, pgconn.ValidateConnectTargetSessionAttrsStandby, func(id *outcome.Identity) error {
		if !id.Standby {
			return pgconn.ErrPrimaryConnection
		}
		return nil
	})
}

// identifyRole judges a new connection by who its server is, or leaves that to pgx where the server does not say.
func identifyRole(ctx context.Context, pc *pgconn.PgConn, plain pgconn.ValidateConnectFunc, judge func(*outcome.Identity) error) error {
	l := newLink(pc)
	if err := l.ask(ctx); err != nil {
		return &greetError{err}
	}
	if !l.server.Known() {
		return plain(ctx, pc)
	}
	return judge(&l.server)
}

// roleOf returns the role that cfg asks for. It is not known where a function of the user's checks it.
func roleOf(cfg *pgx.ConnConfig) (role string, known bool) {
	if cfg.ValidateConnect == nil {
		return "any", true
	}
	role, known = roles[codeOf(cfg.ValidateConnect)]
	return role, known
}

// needsPrimary reports whether cfg connects to a primary only.
func needsPrimary(cfg *pgx.ConnConfig) bool {
	role, _ := roleOf(cfg)
	return role == "primary" || role == "read-write"
}

// toPrimary returns a copy of cfg for a connection to a primary, whatever role cfg asks for. One attempt at one host is
// bounded, also where cfg is another's.
func toPrimary(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.ConnectTimeout = orDefault(cfg.ConnectTimeout, DefaultConnectTimeout)
	cfg.ValidateConnect = validatePrimary
	return cfg
}

// validatePrimary is a pgconn.ValidateConnectFunc for a connection that questions are asked over. Each answer says again
// whether it is a hot standby's, so that a pooler which tells of another server costs another attempt only.
func validatePrimary(ctx context.Context, pc *pgconn.PgConn) error {
	if pc.ParameterStatus("in_hot_standby") == "off" {
		return nil
	}
	standby, err := outcome.InRecovery(ctx, pc)
	if err == nil && standby {
		err = pgconn.ErrStandbyConnection
	}
	return err
}
