package lock

import (
	"os"

	"dcelock/meta"
)

// What becomes of the locking that a runner does for itself (contract, "Taking,
// holding, releasing"): beside this lock it would collide with it; without it,
// where it guards another archive, that archive would have no lock at all.

// An InnerLock says what a command is told of its own locking.
type InnerLock int

const (
	InnerSkip    InnerLock = iota // DCE_SKIP_SCRAPE_LOCK=1: this lock does it
	InnerKeep                     // that variable stays as the caller has it
	InnerStaysOn                  // that variable is taken out, as an outer dcelock may have set it for another lock
)

// InnerLockFor decides for a command that runs under the lock at a location, by
// what --inner-lock asks for: of auto, skip, unless the command may outlive the
// lock or evidently guards another archive, of which it warns.
func InnerLockFor(asked string, at Location, command Command, outlives bool, log meta.Log) InnerLock {
	switch {
	case asked == "skip":
		return InnerSkip
	case asked == "keep":
		return InnerKeep
	case outlives:
		return InnerStaysOn
	}
	if file := envFileOf(command.Words); file != "" {
		if named, ok := variableIn(file, "DCE_SCRAPE_LOCK_FILE"); ok && named != "" {
			if at.same(Location{Place: meta.Place{Lock: named}}) {
				return InnerSkip
			}
			log.Warn("the env file %s gives the command the lock %s, and this run has the lock %s: the command's own locking stays on", file, named, at.Lock)
			return InnerStaysOn
		}
		if value, ok := variableIn(file, skipVariable); ok && value != "1" {
			log.Warn("the env file %s sets %s=%s for the command, and this run has the lock %s: the command's own locking stays on, and collides with this run where it asks for the same lock", file, skipVariable, value, at.Lock)
			return InnerStaysOn
		}
	}
	if os.Getenv("DCE_SCRAPE_LOCK_FILE") != "" {
		return InnerSkip // which the command goes by as well
	}
	own, ok := configOf(command.Words)
	if !ok {
		return InnerSkip
	}
	its, err := own.location()
	if err != nil || at.same(its) {
		return InnerSkip
	}
	log.Warn("the command guards another archive, that of %v, with the lock %s, and this run has the lock %s: the command's own locking stays on", own, its.Lock, at.Lock)
	return InnerStaysOn
}
