package outcome

import "github.com/jackc/pgx/v5/pgproto3"

// Statement returns the messages that run sql, which has no parameters and whose values are wanted as text. With a name it is prepared
// under that name, which must not be taken, and can be run again by Execution.
func Statement(name, sql string) []byte {
	return append(Preparation(name, sql), Execution(name)...)
}

// Preparation returns the messages that prepare a statement.
func Preparation(name, sql string) []byte { return encoded(&pgproto3.Parse{Name: name, Query: sql}) }

// Execution returns the messages that run a prepared statement, with its parameters as text.
func Execution(name string, parameters ...[]byte) []byte {
	return append(encoded(&pgproto3.Bind{PreparedStatement: name, Parameters: parameters}), encoded(&pgproto3.Execute{})...)
}

// encoded returns a message as it is sent. Only one that is larger than the protocol allows fails.
func encoded(m pgproto3.FrontendMessage) []byte {
	b, err := m.Encode(nil)
	if err != nil {
		panic("retrypg: a message of a few bytes cannot be encoded: " + err.Error())
	}
	return b
}
