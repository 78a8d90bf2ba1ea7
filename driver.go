package retrypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// DriverName is the name under which the package registers itself with database/sql.
const DriverName = "retrypg"

func init() { sql.Register(DriverName, &Driver{}) }

// Driver is the database/sql driver. sql.Open(DriverName, dsn) uses it; there is no need to name it.
type Driver struct {
	core *core // of the connector that it stands for, for WithTx; nil in the registered driver
}

var _ driver.DriverContext = (*Driver)(nil)

// Open implements driver.Driver. database/sql prefers OpenConnector: each Open has a breaker and a budget of its own.
func (d *Driver) Open(dsn string) (driver.Conn, error) {
	c, err := NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return c.Connect(context.Background())
}

// OpenConnector implements driver.DriverContext.
func (d *Driver) OpenConnector(dsn string) (driver.Connector, error) { return NewConnector(dsn) }
