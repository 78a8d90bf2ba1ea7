package retrypg

import (
	"hash/maphash"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/retrypg/retrypg/internal/contention"
)

// maxElements bounds how many elements of a list are looked at, as in id = any($1).
const maxElements = 16

var printSeed = maphash.MakeSeed()

// marksOf returns what a statement touches, as its arguments tell: each argument at its place in the text. A list is as many arguments at one place.
func marksOf(sql string, args []any) []contention.Mark {
	if len(args) == 0 {
		return nil
	}
	text := maphash.String(printSeed, sql)
	marks := make([]contention.Mark, 0, len(args))
	for i, arg := range args {
		if named := namedArgs(arg); named != nil {
			for name, value := range named {
				marks = appendMarks(marks, maphash.Comparable(printSeed, placeKey{text: text, name: name}), value)
			}
			continue
		}
		marks = appendMarks(marks, maphash.Comparable(printSeed, placeKey{text: text, number: i}), arg)
	}
	return marks
}

type placeKey struct {
	text   uint64
	number int
	name   string
}

type valueKey[T comparable] struct {
	place uint64
	value T
}

func appendMarks(marks []contention.Mark, place uint64, arg any) []contention.Mark {
	mark := func(value uint64) { marks = append(marks, contention.Mark{Place: place, Value: value}) }
	if arg == nil {
		return marks
	}
	v := reflect.ValueOf(arg)
	switch {
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		mark(maphash.Comparable(printSeed, valueKey[uint64]{place, maphash.Bytes(printSeed, v.Bytes())}))
	case v.Kind() == reflect.Slice && immutable(v.Type().Elem()):
		for i := range min(v.Len(), maxElements) {
			mark(maphash.Comparable(printSeed, valueKey[any]{place, v.Index(i).Interface()}))
		}
	case immutable(v.Type()):
		mark(maphash.Comparable(printSeed, valueKey[any]{place, arg}))
	}
	return marks
}

// copied returns arguments that stay as they are, whatever the caller does with his after the call. It is false where that cannot be had.
func copied(args []any) ([]any, bool) {
	args = slices.Clone(args)
	for i, arg := range args {
		if named := namedArgs(arg); named != nil {
			named = maps.Clone(named)
			for name, value := range named {
				kept, ok := copiedArg(value)
				if !ok {
					return nil, false
				}
				named[name] = kept
			}
			args[i] = reflect.ValueOf(named).Convert(reflect.TypeOf(arg)).Interface()
			continue
		}
		kept, ok := copiedArg(arg)
		if !ok {
			return nil, false
		}
		args[i] = kept
	}
	return args, true
}

func copiedArg(arg any) (any, bool) {
	if arg == nil {
		return nil, true
	}
	v := reflect.ValueOf(arg)
	switch {
	case immutable(v.Type()):
		return arg, true
	case v.Kind() == reflect.Slice && immutable(v.Type().Elem()):
		if v.IsNil() {
			return arg, true
		}
		kept := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(kept, v)
		return kept.Interface(), true
	}
	return nil, false
}

// namedArgs returns the arguments by name of pgx, if arg is such.
func namedArgs(arg any) map[string]any {
	switch named := arg.(type) {
	case pgx.NamedArgs:
		return named
	case pgx.StrictNamedArgs:
		return named
	}
	return nil
}

// immutable reports whether a value of a type, once it is in an interface, can be changed by nobody, and be compared.
func immutable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return true
	case reflect.Array:
		return immutable(t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return true
		}
		for i := range t.NumField() {
			if !immutable(t.Field(i).Type) {
				return false
			}
		}
		return true
	}
	return false
}
