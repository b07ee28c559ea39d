package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is a session on a real pty, whose leader is the given program.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{} // closed when the leader has ended
	read   chan struct{} // closed when all that was printed is in screen

	mu     sync.Mutex
	screen bytes.Buffer // all that was printed
}

func (c call) onTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	term := &terminal{t: t, master: master, cmd: exec.Command(c.argv[0], c.argv[1:]...), done: make(chan struct{}), read: make(chan struct{})}
	term.cmd.Dir, term.cmd.Env = c.dir, append(os.Environ(), c.env...)
	term.cmd.Stdin, term.cmd.Stdout, term.cmd.Stderr = slave, slave, slave
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(term.read)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			term.mu.Lock()
			term.screen.Write(buffer[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		term.cmd.Wait()
		close(term.done)
	}()
	t.Cleanup(func() {
		term.cmd.Process.Kill()
		<-term.done
		master.Close()
	})
	return term
}

func (term *terminal) text() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.screen.String()
}

// sees waits until the terminal shows text at least n times.
func (term *terminal) sees(text string, n int) {
	term.t.Helper()
	if !eventually(func() bool { return strings.Count(term.text(), text) >= n }) {
		term.t.Fatalf("the terminal does not show %q %d times but:\n%s", text, n, term.text())
	}
}

func (term *terminal) types(text string) {
	term.t.Helper()
	if _, err := term.master.WriteString(text); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) wait() syscall.WaitStatus {
	term.t.Helper()
	for _, ended := range []chan struct{}{term.done, term.read} {
		select {
		case <-ended:
		case <-time.After(patience):
			term.t.Fatalf("the session does not end; it shows:\n%s", term.text())
		}
	}
	return term.cmd.ProcessState.Sys().(syscall.WaitStatus)
}
