package tests

import (
	"os"
	"syscall"
	"testing"
)

// asUser makes a process one of a user without privileges: another one when
// the tests run as root, their own otherwise.
func asUser(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	const nobody = 65534
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}
