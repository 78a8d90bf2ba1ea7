// Package soak checks, with random faults under load and one seed that decides all that is random, that what was told
// about each transaction is what is there. It runs for a short time with the other tests, and for as long as asked with
//
//	make soak SOAK=10m
//
// Two histories are written at the same time: transfers between accounts, whose sum must stay, and lists that are
// appended to and read under SERIALIZABLE, where every read must be a prefix of what the list became.
//
// # Would it notice?
//
// PostgreSQL hands out transaction ids again that were not flushed when it crashed. In internal/outcome/decide.go, judge,
// take the comparison of epochs out:
//
//	doubtful := !known || r.server.Timeline != q.Server.Timeline
//
// and TestWhatIsToldIsTrueThroughCrashesAtRandom fails within half a minute, with a hundred and more transactions that were
// told to be applied and are not there: their ids are those of others by the time of the question.
package soak
