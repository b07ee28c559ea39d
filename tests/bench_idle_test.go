package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A watched process is one that does nothing but exist.
type watched struct {
	*process
	by, state     string
	before, after usage
}

// A usage is what a process has used by now: the numbers of its
// /proc/PID/status, with MiB in place of kB, and of all its threads together
// the voluntary context switches and, as "cpu", the milliseconds on a processor
// (the first number of schedstat, which the ticks in /proc/PID/stat are too
// coarse for).
type usage map[string]float64

func (b *bench) usage(pid int) usage {
	u := usage{}
	folder := fmt.Sprintf("/proc/%d/", pid)
	for line := range strings.Lines(slurp(b.T, folder+"status")) {
		if fields := strings.Fields(line); len(fields) > 1 {
			n, _ := strconv.ParseFloat(fields[1], 64)
			if len(fields) == 3 && fields[2] == "kB" {
				n /= 1024
			}
			u[strings.TrimSuffix(fields[0], ":")] = n
		}
	}
	u[voluntary] = 0
	threads, _ := filepath.Glob(folder + "task/*")
	for _, thread := range threads {
		_, rest, _ := strings.Cut(slurp(b.T, thread+"/status"), "\n"+voluntary+":")
		rest, _, _ = strings.Cut(rest, "\n")
		n, err1 := strconv.ParseFloat(strings.TrimSpace(rest), 64)
		used, _, _ := strings.Cut(slurp(b.T, thread+"/schedstat"), " ")
		ns, err2 := strconv.ParseFloat(used, 64)
		if err1 != nil || err2 != nil {
			b.Fatalf("%s tells no use: %v, %v", thread, err1, err2)
		}
		u[voluntary] += n
		u["cpu"] += ns / float64(time.Millisecond)
	}
	return u
}

const voluntary = "voluntary_ctxt_switches"

// idle measures what a run costs while its command runs and while it waits.
// Several of each are watched at the same time.
func (b *bench) idle() {
	const pairs = 5
	states := []string{"command runs", "waiting"}
	var all []*watched
	for range pairs {
		for _, l := range []locker{byFlock, byDcelock} {
			s := b.newArchive()
			holder := l.hold(b, s)
			waiter := l.call(s, b.shrug).start(b.T)
			l.queued(b, s, waiter, 1)
			all = append(all, &watched{process: holder, by: l.name, state: states[0]}, &watched{process: waiter, by: l.name, state: states[1]})
		}
	}
	time.Sleep(b.window / 10) // for what they still do at the beginning
	for _, w := range all {
		w.before = b.usage(w.cmd.Process.Pid)
	}
	time.Sleep(b.window)
	for _, w := range all {
		w.after = b.usage(w.cmd.Process.Pid)
	}
	for _, w := range all { // a waiter comes behind its holder
		w.end()
		w.wait().wants(b.T, 0)
	}

	used := func(key string) func(w *watched) float64 {
		return func(w *watched) float64 { return w.after[key] - w.before[key] }
	}
	is := func(key string) func(w *watched) float64 { return func(w *watched) float64 { return w.after[key] } }
	for _, state := range states {
		for _, row := range []struct {
			what  string
			of    func(w *watched) float64
			goals []target
		}{
			{"VmRSS (MiB)", is("VmRSS"), []target{{most: 4.5}}},
			{"VmHWM (MiB)", is("VmHWM"), nil},
			{"RssAnon (MiB)", is("RssAnon"), nil},
			{"threads", is("Threads"), []target{{most: 5}}},
			{fmt.Sprintf("CPU in %v (ms)", b.window), used("cpu"), []target{{most: b.window.Seconds() / 5}}},
			{fmt.Sprintf("switches in %v", b.window), used(voluntary), nil},
		} {
			contestants := []*contestant{{name: theFlock}, {name: "dcelock", targets: row.goals}}
			for _, w := range all {
				for _, c := range contestants {
					if w.by == c.name && w.state == state {
						c.samples = append(c.samples, row.of(w))
					}
				}
			}
			b.part(row.what+", "+state, contestants)
		}
	}
}

// size is the programs' own, on the disk.
func (b *bench) size() {
	var contestants []*contestant
	for _, name := range []string{theFlock, binary} {
		path, err := exec.LookPath(name)
		if err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		contestants = append(contestants, &contestant{name: filepath.Base(name), samples: []float64{float64(info.Size()) / (1 << 20)}})
	}
	contestants[1].targets = []target{{most: 3.3}}
	b.part("size of the program (MiB)", contestants)
}
