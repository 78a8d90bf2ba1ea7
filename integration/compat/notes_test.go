package compat_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// notes is what a program has seen, one line for each observation. Its lines are compared as text, so that a difference
// shows what was different.
type notes struct{ seen []string }

// note notes a value with its Go type.
func (n *notes) note(label string, value any) {
	n.seen = append(n.seen, label+": "+describe(value))
}

// fail notes an error: the types, texts and fields of everything that it wraps. What errors.Is and errors.As find, and
// what an assertion without unwrapping finds, is the same for two errors that are noted the same.
func (n *notes) fail(label string, err error) {
	n.seen = append(n.seen, label+": "+chain(err))
}

func chain(err error) string {
	if err == nil {
		return "no error"
	}
	text := fmt.Sprintf("%T %q", err, err.Error())
	if pgErr, ok := err.(*pgconn.PgError); ok { //nolint:errorlint // each link of the chain by itself
		text = fmt.Sprintf("%T %+v", pgErr, *pgErr)
	}
	switch wrapper := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() []error }:
		for _, e := range wrapper.Unwrap() {
			text += " <[" + chain(e) + "]"
		}
	case interface{ Unwrap() error }:
		if e := errors.Unwrap(err); e != nil {
			text += " <- " + chain(e)
		}
	}
	return text
}

// describe formats a value so that its pointers are followed and its times are comparable.
func describe(value any) string {
	switch v := value.(type) {
	case nil:
		return "nil"
	case time.Time:
		return "time " + v.Format(time.RFC3339Nano) + " in " + v.Location().String()
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = describe(v[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case error:
		return chain(v)
	case reflect.Type:
		return v.String()
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return fmt.Sprintf("%T nil", value)
		}
		return "&" + describe(v.Elem().Interface())
	case reflect.Struct:
		return fields(v)
	case reflect.String:
		return fmt.Sprintf("%T %q", value, value)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%T %q", value, v.Bytes())
		}
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = describe(v.Index(i).Interface())
		}
		return fmt.Sprintf("%T[%s]", value, strings.Join(parts, ", "))
	default:
		return fmt.Sprintf("%T %v", value, value)
	}
}

func fields(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return fmt.Sprintf("%s %s", v.Type(), s)
	}
	var parts []string
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			parts = append(parts, v.Type().Field(i).Name+": "+describe(v.Field(i).Interface()))
		}
	}
	return v.Type().String() + "{" + strings.Join(parts, ", ") + "}"
}
