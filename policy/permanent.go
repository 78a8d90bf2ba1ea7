package policy

// Permanent marks err as not to be retried, whatever [RetrierOptions.Decide] says. The mark is taken off before the loop
// returns the error. An error that wraps a marked one is not retried either; there the mark stays, and shows neither in the
// text nor to errors.Is and errors.As. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }

func (e *permanentError) Unwrap() error { return e.err }

// stripped takes the marks of Permanent off err.
func stripped(err error) error {
	for {
		p, ok := err.(*permanentError) //nolint:errorlint // only the outermost mark can be taken off
		if !ok {
			return err
		}
		err = p.err
	}
}

// isPermanent reports whether err or an error it wraps is marked. It is errors.As without the allocation of its target.
func isPermanent(err error) bool {
	for err != nil {
		switch e := err.(type) { //nolint:errorlint // this is the walk
		case *permanentError:
			return true
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				if isPermanent(err) {
					return true
				}
			}
			return false
		default:
			return false
		}
	}
	return false
}
