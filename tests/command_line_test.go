package tests

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A reading is what the contract says of a command line: what is run, by a shell
// or not, or that it is wrong.
type reading struct {
	wrong   bool
	script  bool
	command []string
}

// values are the flags that take a value, with a check of it; switches those
// that take none. Both by their long names and their letters.
var (
	values = map[string]func(string) bool{
		"--config": func(v string) bool { return v != "" }, "--wait": isWait, "-w": isWait, "--timeout": isWait,
		"--conflict-exit-code": isStatus, "-E": isStatus, "--inner-lock": func(v string) bool { return v == "auto" || v == "skip" || v == "keep" },
		"-c": func(string) bool { return true }, "--command": func(string) bool { return true },
	}
	switches = []string{"-n", "--nonblock", "--nb", "--nonblocking", "-o", "--close", "-q", "--quiet", "-v", "--verbose", "-x", "-e", "--exclusive"}
)

func isWait(v string) bool { return slices.Contains([]string{"0", "0.5", "1m", "forever"}, v) }

func isStatus(v string) bool {
	n, err := strconv.ParseUint(v, 10, 8)
	return err == nil && n < 256
}

// read reads a command line by the contract's own words, without kong.
func read(words []string) reading {
	wait, nonblock, wrong := false, false, false
	var script []string
	take := func(flag, value string) {
		wrong = wrong || !values[flag](value)
		wait = wait || isWait(value) && strings.Contains("--wait -w --timeout", flag)
		if flag == "-c" || flag == "--command" {
			script = []string{value}
		}
	}
	for len(words) > 0 && !wrong {
		word := words[0]
		if word == "--" {
			words = words[1:]
			break
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			break
		}
		words = words[1:]
		name, value, assigned := strings.Cut(word, "=")
		switch {
		case strings.HasPrefix(word, "--") && values[name] != nil && assigned:
			take(name, value)
		case values[word] != nil && len(words) > 0 && !(strings.HasPrefix(words[0], "-") && len(words[0]) > 1):
			take(word, words[0])
			words = words[1:]
		case slices.Contains(switches, word):
			nonblock = nonblock || strings.HasPrefix(word, "-n") || strings.HasPrefix(word, "--n")
		case len(word) > 2 && word[1] != '-' && values[word[:2]] != nil: // -w5
			take(word[:2], word[2:])
		case len(word) > 2 && word[1] != '-' && slices.Contains(switches, word[:2]): // -nq
			words = append([]string{word[:2], "-" + word[2:]}, words...)
		default:
			wrong = true
		}
	}
	if script != nil && !wrong {
		return reading{wrong: wait && nonblock || len(words) > 0, script: true, command: script}
	}
	wrong = wrong || wait && nonblock || len(words) == 0
	// What flock(1) takes as its first word: a descriptor's number, a lock file.
	wrong = wrong || words[0] != "" && strings.Trim(words[0], "0123456789") == "" || strings.HasSuffix(words[0], ".lock")
	return reading{wrong: wrong, command: words}
}

// vocabulary is what command lines are made of.
var vocabulary = strings.Split("-n --nonblock --nb --nonblocking -w --wait --timeout -E --conflict-exit-code -o --close --inner-lock -q --quiet -v --verbose --config "+
	"--wait=0 --wait=0.5 --wait= --timeout=forever --wait=-1 --config=c --config= --inner-lock=keep --inner-lock=x --conflict-exit-code=75 --conflict-exit-code=256 "+
	"-w0 -w1m -wx -E0 -E255 -E256 -nq -qv -nE75 -ow0 -x -e --exclusive -xnE75 -csay --command=say --inner-lock=auto -s -u -F --fcntl -y -- --- - --confg -ny x.lock 0 0.5 1m forever keep 75 x say say say -- -- =", " ")

// What is not UTF-8 is read as it was typed: the config's name, and a script.
func TestWordsThatAreNotUTF8(t *testing.T) {
	s := newArchive(t)
	config := s.a + "/Gr\xf6\xdfe.json"
	write(t, config, slurp(t, s.a+"/config/scrape-targets.json"))
	for _, flag := range [][]string{{"--config", config}, {"--config=" + config}} {
		if r := s.dcelock(append(flag, "-c", "printf %s '\xf6\xdf'")...).run(t); r.status != 0 || r.stdout != "\xf6\xdf" {
			t.Errorf("%q: %+v", flag, r)
		}
	}
}

// Random command lines are read as the contract says: what runs, runs with its own
// words; and what is wrong is refused with status 64, and runs nothing.
func FuzzCommandLine(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		var words []string
		for range random.IntN(7) {
			words = append(words, vocabulary[random.IntN(len(vocabulary))])
		}
		folder := t.TempDir()
		write(t, folder+"/say", "#!/bin/sh\nprintf '%s\\n' say \"$@\"\n")
		os.Chmod(folder+"/say", 0o755)
		cmd := exec.Command(binary, words...)
		cmd.Dir = folder
		// Nothing but say can be found there.
		cmd.Env = []string{"PATH=" + folder, "DCE_SCRAPE_LOCK_FILE=" + folder + "/lock"}
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run() // the status tells
		want := read(words)
		status, printed := 0, ""
		switch {
		case want.wrong:
			status = 64
		case want.command[0] != "say":
			status = 127
		case want.script:
			printed = "say\n"
		default:
			printed = strings.Join(want.command, "\n") + "\n"
		}
		if got := cmd.ProcessState.ExitCode(); got != status || stdout.String() != printed {
			t.Errorf("%q: status %d, want %d; printed %q, want %q; said %s", words, got, status, stdout.String(), printed, stderr.String())
		}
		if status != 0 && exists(folder+"/lock") {
			t.Errorf("%q: a lock file was made", words)
		}
	})
}
