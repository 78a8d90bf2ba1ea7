//go:build !linux

package transport

func setMaxResend(uintptr) error { return nil }
