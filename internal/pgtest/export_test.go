package pgtest

// WatchdogPID is the process id of the watchdog of this process.
func WatchdogPID() int {
	owned.mu.Lock()
	defer owned.mu.Unlock()
	return owned.guard.watchdog.Process.Pid
}
