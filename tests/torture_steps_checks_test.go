package tests

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// check is what must hold at the end of a trial.
func (s *steps) check(f stepFault) {
	stayed := f.visitor == stays && s.began
	for _, p := range []*process{s.visitor, s.held} {
		if p != nil {
			p.end()
		}
	}
	for _, p := range []*process{s.visitor, s.held} {
		if p != nil {
			if r := p.wait(); r.status != own && !(p == s.visitor && r.status == 1 && f.visitor == stays && !s.began) {
				s.violated("the run beside it ended with status %d, signal %v: %s", r.status, r.signal, r.stderr)
			}
		}
	}
	for _, p := range gone(s.mark) {
		s.violated("a %s is left: pid %d", p.role, p.pid)
	}
	s.events = append(s.events, fmt.Sprintf("%d the traced run ended: %x", monotonic(), int(s.tracer.end)))
	for line := range strings.Lines(slurp(s.t, s.folder+"/log")) {
		if strings.Contains(line, " overlap ") || strings.Contains(line, " bad ") {
			s.violated("%s", line)
		}
	}
	// How the traced run ended: by its command's status if that ran, refused
	// if not. It notices nothing of another one that was kept out, or let in
	// and gone, before it had the lock.
	ran := strings.Contains(slurp(s.t, s.folder+"/log"), fmt.Sprintf(" end %d ", idTraced))
	refused := s.held != nil && !s.scenario.waits
	switch end := s.tracer.end; {
	case f.signal != 0 && end.Signaled() && syscall.Signal(end.Signal()) == f.signal:
	case end.Exited() && end.ExitStatus() == own && ran && !refused:
	case end.Exited() && end.ExitStatus() == 1 && !ran && (refused || stayed):
	default:
		s.violated("the traced run ended with status %d, signal %v; its command ran: %v", end.ExitStatus(), end.Signal(), ran)
	}
	killed := f.signal == syscall.SIGKILL
	for _, path := range []string{s.meta, s.meta + ".tmp"} {
		if text := slurp(s.t, path); text != "" && !killed && !(s.tracer.end.Signaled() && strings.HasPrefix(text, deadRecord)) {
			s.violated("%s is left:\n%s", path, slurp(s.t, path))
		}
	}
	if fd, err := unix.Open(s.lock, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			s.violated("the lock is held, and nobody lives who could hold it: %v", err)
		}
		_ = unix.Flock(fd, unix.LOCK_UN)
		unix.Close(fd)
	}
	if killed || len(s.violations) > 0 {
		s.checkFiles()
	}
	os.Remove(s.meta)
	os.Remove(s.meta + ".tmp")
}
