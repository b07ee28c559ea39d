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
	file, sets := envFileOf(command.Words)
	its, by := sets["DCE_SCRAPE_LOCK_FILE"], "the env file "+file+" names the lock"
	if value, ok := sets[skipVariable]; its == "" && ok && value != "1" {
		log.Warn("the env file %s sets %s=%s for the command, and this run has the lock %s: the command's own locking stays on, and collides with this run where it asks for the same lock", file, skipVariable, value, at.Lock)
		return InnerStaysOn
	}
	own, ok := configOf(command.Words)
	if its == "" && ok && os.Getenv("DCE_SCRAPE_LOCK_FILE") == "" { // by which the command goes as well
		theirs, _ := own.location() // of a broken config the command complains itself
		its, by = theirs.Lock, theirs.Reason
	}
	ours, exists := meta.FileAt(at.Lock)
	if named, _ := meta.FileAt(its); its == "" || its == at.Lock || exists && named == ours {
		return InnerSkip
	}
	log.Warn("the command guards another archive: %s; its lock is %s, and this run has the lock %s: the command's own locking stays on", by, its, at.Lock)
	return InnerStaysOn
}
