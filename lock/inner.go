package lock

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"

	"dcelock/meta"
)

// skipVariable set to 1 tells a runner not to lock for itself, which would collide with this lock.
const skipVariable = "DCE_SKIP_SCRAPE_LOCK"

// guardsAnother tells whether a command evidently locks another archive, which would
// have no lock at all without that, or locks whatever it is told; and warns of it.
func (l *Lock) guardsAnother(words []string) bool {
	config, envFile := ownFiles(words)
	sets := variablesIn(envFile)
	its, by := sets["DCE_SCRAPE_LOCK_FILE"], "the env file "+envFile+" sets DCE_SCRAPE_LOCK_FILE"
	if value, ok := sets[skipVariable]; its == "" && ok && value != "1" {
		l.log.Warn("the env file %s sets %s=%s for the command, and this run has the lock %s: the command's own locking stays on, and collides with this run where it asks for the same lock", envFile, skipVariable, value, l.at.Lock)
		return true
	}
	if its = cmp.Or(its, os.Getenv("DCE_SCRAPE_LOCK_FILE")); its == "" {
		theirs, _ := config.location() // none of no config, and of a broken one the command complains itself
		its, by = theirs.Lock, theirs.Reason
	}
	ours, exists := meta.FileAt(l.at.Lock)
	if named, _ := meta.FileAt(its); its == "" || its == l.at.Lock || exists && named == ours {
		return false
	}
	l.log.Warn("the command guards another archive: %s; its lock is %s, and this run has the lock %s: the command's own locking stays on", by, its, l.at.Lock)
	return true
}

// ownFiles are the config and env file that a runner goes by: of its own words, else of the first
// checkout with a config that a program of them lies in (`timeout 6h ./run.sh`); zero for none.
func ownFiles(command []string) (config source, envFile string) {
	var ofCheckout source
	var scrapeEnv string
	words := scriptWords(command)
	for i, word := range words {
		option, value, _ := strings.Cut(word, "=")
		if value == "" && i+1 < len(words) {
			value = words[i+1]
		}
		switch {
		case option == "--env-file":
			envFile = cmp.Or(envFile, value)
		case option == "--config" && len(inFile(value)) > 0:
			named := source{value, "named by the command's own words"}
			if _, names, _ := readConfig(named); names {
				config = named // of several the last, as a runner has it
			}
		case ofCheckout.path == "" && strings.Contains(word, "/") && executable(word) == nil:
			if root := repositoryRoot(word); exists(defaultConfig(root)) {
				ofCheckout = source{defaultConfig(root), "the default of the checkout that the command lies in"}
				scrapeEnv = filepath.Join(root, "scrape.env")
			}
		}
	}
	return cmp.Or(config, ofCheckout), cmp.Or(envFile, os.Getenv("DCE_ENV_FILE"), scrapeEnv)
}

// scriptWords are a command's words, and behind each those of the script that it
// may be, as `sh -c` has one: near enough, without a shell's rules.
func scriptWords(command []string) (words []string) {
	apart := func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"", r) }
	for _, word := range command[:min(len(command), 1000)] { // a command with more is one with a long list of files
		words = append(words, word)
		if parts := strings.FieldsFunc(word, apart); len(parts) > 1 {
			words = append(words, parts...)
		}
	}
	return words
}

// inFile is what a regular file holds: what is in a pipe is the command's to read.
func inFile(path string) (data []byte) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		data, _ = os.ReadFile(path)
	}
	return data
}

// variablesIn are those that a file sets by NAME=VALUE lines, as a shell reads them.
func variablesIn(file string) map[string]string {
	sets := map[string]string{}
	for line := range strings.Lines(string(inFile(file))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		end := " " // of the value: a comment may follow
		if value != "" && strings.Contains(`"'`, value[:1]) {
			value, end = value[1:], value[:1]
		}
		value, _, _ = strings.Cut(value, end)
		sets[strings.TrimSpace(strings.TrimPrefix(name, "export "))] = value
	}
	return sets
}
