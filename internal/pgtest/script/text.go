package script

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// parameters returns the highest n of $n in a statement.
func parameters(sql string) int {
	highest := 0
	for i := range len(sql) {
		if sql[i] != '$' {
			continue
		}
		end := i + 1
		for end < len(sql) && sql[end] >= '0' && sql[end] <= '9' {
			end++
		}
		if n, err := strconv.Atoi(sql[i+1 : end]); err == nil {
			highest = max(highest, n)
		}
	}
	return highest
}

// statements takes the text of a Query apart. Nothing but white space and line comments counts as one empty statement.
func statements(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	if len(list) == 0 {
		return []string{""}
	}
	return list
}

func (s *Session) usualTag(sql, verb string, rows int) string {
	switch verb {
	case "SELECT", "VALUES", "SHOW", "WITH":
		return fmt.Sprintf("SELECT %d", rows)
	case "INSERT":
		return "INSERT 0 1"
	case "UPDATE", "DELETE":
		return verb + " 1"
	case "COMMIT", "END":
		if s.txStatus == 'E' {
			return "ROLLBACK"
		}
		return "COMMIT"
	case "START":
		return "START TRANSACTION"
	case "CREATE", "DROP", "ALTER":
		return strings.ToUpper(strings.Join(strings.Fields(sql)[:min(2, len(strings.Fields(sql)))], " "))
	default:
		return verb
	}
}

func rowDescription(columns []Column, formats []int16) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{}
	for i, c := range columns {
		oid := c.OID
		if oid == 0 {
			oid = 25
		}
		d.Fields = append(d.Fields, pgproto3.FieldDescription{
			Name: []byte(c.Name), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1, Format: formatOf(formats, i),
		})
	}
	return d
}

// formatOf returns the format of column i: none means text for all, one counts for all.
func formatOf(formats []int16, i int) int16 {
	switch {
	case len(formats) == 0:
		return pgproto3.TextFormat
	case len(formats) == 1:
		return formats[0]
	default:
		return formats[i]
	}
}

// encode gives a value the form that the client asked for. A script whose text is no number of its type is wrong.
func encode(text string, oid uint32, format int16) []byte {
	if format == pgproto3.TextFormat {
		return []byte(text)
	}
	switch oid {
	case 20, 23:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("script: %q is no integer, as its column says", text))
		}
		if oid == 23 {
			return binary.BigEndian.AppendUint32(nil, uint32(n))
		}
		return binary.BigEndian.AppendUint64(nil, uint64(n))
	case 16:
		if text == "t" || text == "true" {
			return []byte{1}
		}
		return []byte{0}
	default:
		return []byte(text)
	}
}
