package meta

import (
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// usage says at once what the README says at length.
const usage = `Usage: dcelock [flags] [--] COMMAND [ARG...]
       dcelock [flags] -c SCRIPT
       dcelock --status [--json] [flags]

Runs COMMAND only while no other run has the same scrape archive, and says who has it. The first word that is not a flag begins COMMAND.

  --config FILE   scrape config (JSON) that names archive_root
  -n, --nonblock   fail at once when the lock is held (the default)
  -w, --wait, --timeout TIME   wait so long: seconds (30, 0.5), 90s, 2h, or forever
  -E, --conflict-exit-code N   exit status when the lock is held (1)
  -c, --command SCRIPT   run SCRIPT by $SHELL -c, else /bin/sh -c
  -o, --close   COMMAND does not inherit the lock: for what starts daemons; any kill can then free the lock while the work goes on
  --inner-lock auto|skip|keep   what a runner is told of its own locking: skip exports DCE_SKIP_SCRAPE_LOCK=1; auto (the default) does so unless the runner guards another archive; keep leaves the variable as it is
  --status   say who holds the lock, run nothing: exit 0 when nobody does, 1 when somebody does
  --json   with --status: as one JSON object
  -q, --quiet   no notes; twice: nothing at all when the lock is held
  -v, --verbose   also which lock, why that one, how long it took
  -x, -e, --exclusive   accepted, as it is always so
  -h, --help; -V, --version

Which lock: $DCE_SCRAPE_LOCK_FILE; else .dce-scrape.lock in the archive_root of the config; else, where the config names none, in the repository root.
Which config: --config; $DCE_CONFIG_FILE; the one that COMMAND names (--config X); config/scrape-targets.json of the checkout that COMMAND lies in; that of the working directory. $DCE_REPO_ROOT is the repository root.
Also: $DCE_SCRAPE_LOCK_WAIT is --wait; DCE_SKIP_SCRAPE_LOCK=1 runs without any lock. COMMAND gets DCE_SCRAPE_LOCK_HELD, the lock file.

Exit status: the command's own, or death by its signal; 126, 127 it cannot be executed, was not found; 1 (-E) the lock is held; 64 wrong usage; 65 the config is not what it should be; 66 it cannot be read, or the archive root cannot be reached; 71 the system refused (no locks, descriptors or processes); 73 the lock file cannot be opened.

Examples:
  dcelock --config c.json -- ./run.sh
  dcelock --wait 6h -- ./run.sh scrape
  dcelock --status
`

// Usage is the text of --help, in lines that fit the terminal.
func Usage() string {
	width := 80
	if size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		width = min(max(int(size.Col), 40), 120) // no word is longer
	}
	var out strings.Builder
	for line := range strings.Lines(usage) {
		for len(line) > width+1 { // with its end
			end := strings.LastIndexByte(line[:width+1], ' ')
			out.WriteString(line[:end] + "\n")
			line = "    " + line[end+1:]
		}
		out.WriteString(line)
	}
	return out.String()
}

// BadFlag says in plain words what kong says of a flag.
func BadFlag(said string) string {
	flag, _, ok := strings.Cut(said, ": expected ")
	switch {
	case strings.HasSuffix(flag, "-exit-code"):
		return flag + " takes a number from 0 to 255"
	case ok:
		return flag + " needs a value; one that begins with - is put behind ="
	}
	flag, unknown := strings.CutPrefix(said, "unknown flag ")
	flag, _, _ = strings.Cut(flag, ", did you mean ")
	for flags, why := range map[string]string{ // that people bring from flock(1)
		"-s --shared":  "the lock is always exclusive, as two scrapes of one archive are never safe",
		"-u --unlock":  "there is nothing to unlock, as the lock is free when COMMAND has ended",
		"-F --no-fork": "dcelock stays beside COMMAND to release the lock after it",
		"--fcntl":      "the lock file is locked by fcntl(2) as well as by flock(2)",
	} {
		if slices.Contains(strings.Fields(flags), flag) {
			return "flock(1) has " + flags + " and dcelock has not: " + why + "; leave it out"
		}
	}
	if unknown && len(flag) == 2 {
		return "there is no flag " + flag // kong would name all that are
	}
	return said
}

// archived is filled in by `git archive` (gitattributes(5), export-subst).
const archived = "$Format:%(describe:tags=true) %h$"

// Version tells the source that this was built from: the tag, or the commit and
// whether the tree was changed.
func Version() string {
	info, _ := debug.ReadBuildInfo() // is in all that go build makes
	if info.Main.Version == "(devel)" && archived[0] != '$' {
		return strings.Fields(archived)[0]
	}
	return info.Main.Version
}

// Again is a command line with a wait put in, to be typed again; "" where that
// cannot be shown, as a secret is hidden in it or it is too long. It is as it was
// typed, but for flags that say how long to wait, and with the variables that say
// which lock, as they may have stood in front of it.
func Again(flags, command []string) string {
	words := []string{"env"}
	for _, name := range []string{"DCE_SCRAPE_LOCK_FILE", "DCE_CONFIG_FILE", "DCE_REPO_ROOT"} {
		if value := os.Getenv(name); value != "" {
			words = append(words, name+"="+value)
		}
	}
	if len(words) == 1 {
		words = nil
	}
	words = append(words, os.Args[0])
	switches := regexp.MustCompile(`^-[noxeqv]+`) // they may stand in one word
	for i := 0; i < len(flags); i++ {
		flag := switches.ReplaceAllStringFunc(flags[i], func(s string) string { return strings.ReplaceAll(s, "n", "") })
		switch {
		case flag == "-" && flags[i] != "-", strings.HasPrefix(flag, "--n"):
		case slices.Contains([]string{"-w", "--wait", "--timeout"}, flag):
			i++ // its value
		case strings.HasPrefix(flag, "-w"), strings.HasPrefix(flag, "--wait="), strings.HasPrefix(flag, "--timeout="):
		default:
			words = append(words, flag)
		}
	}
	text := Summary(slices.Concat(words, []string{"--wait", "1h"}, command))
	if strings.Contains(text, hidden) || strings.HasSuffix(text, mark) {
		return ""
	}
	return text
}
