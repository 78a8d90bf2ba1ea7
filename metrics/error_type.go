package metrics

import (
	"context"
	"errors"
	"reflect"
	"strings"
)

// errorTypeOther is what OpenTelemetry's semantic conventions have for an error.type that is not known.
const errorTypeOther = "_OTHER"

// errorType returns the kind of an error that has no SQLSTATE, never its text, which may hold user data: the outermost Go
// type that says something, which those of fmt and errors, and retrypg's own wrappers, do not.
func errorType(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline_exceeded"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	for err != nil {
		typ := reflect.TypeOf(err)
		name := typ.String()
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		switch pkg := typ.PkgPath(); {
		case pkg == "fmt", pkg == "errors", pkg == ScopeName, strings.HasPrefix(pkg, ScopeName+"/"):
		default:
			return boundedName(name)
		}
		err = unwrapFirst(err)
	}
	return errorTypeOther
}

// unwrapFirst returns the error that err wraps, or the first one of several.
func unwrapFirst(err error) error {
	switch e := err.(type) { //nolint:errorlint // This is a step of the unwrapping itself.
	case interface{ Unwrap() error }:
		return e.Unwrap()
	case interface{ Unwrap() []error }:
		if errs := e.Unwrap(); len(errs) > 0 {
			return errs[0]
		}
	}
	return nil
}
