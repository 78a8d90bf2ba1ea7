//go:build !linux

package transport

import (
	"errors"
	"time"
)

const hasUserTimeout = false

func setUserTimeout(uintptr, time.Duration) error { return nil }

// notKnown is true for the answer of a system that does not have an option.
func notKnown(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
