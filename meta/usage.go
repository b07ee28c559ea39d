package meta

import (
	_ "embed"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// usage says at once what the README says at length.
//
//go:embed usage.txt
var usage string

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

// Version is the source of this build: the tag, or the commit and whether the tree was changed.
func Version() string {
	info, _ := debug.ReadBuildInfo() // is in all that go build makes
	if info.Main.Version == "(devel)" && archived[0] != '$' {
		return strings.Fields(archived)[0]
	}
	return info.Main.Version
}

// Again is a command line with a wait put in, to be typed again; "" where a secret is hidden
// in it or it is too long. It is as it was typed, without --nonblock (of several waits the last
// counts), with the variables that say which lock, as they may have stood in front of it.
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
	for _, typed := range flags {
		flag := switches.ReplaceAllStringFunc(typed, func(s string) string { return strings.ReplaceAll(s, "n", "") })
		if !strings.HasPrefix(flag, "--n") && (flag != "-" || flag == typed) {
			words = append(words, flag)
		}
	}
	text := Summary(slices.Concat(words, []string{"--wait", "1h"}, command))
	if strings.Contains(text, hidden) || strings.HasSuffix(text, mark) {
		return ""
	}
	return text
}
