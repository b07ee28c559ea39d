package lock

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// What a command says of itself: the config and the env file that its own words
// name, and the checkout that its program lies in. A self-locking runner goes by
// these, so that a bare prefix has to go by them too (contract, "Which lock").

// configOf is the config that a command's own words or its checkout lead to.
func configOf(command []string) (source, bool) {
	words := scriptWords(command)
	for _, path := range valuesOf("--config", words) {
		own := source{path, "named by the command's own words"}
		if _, names, _ := readConfig(own); names {
			return own, true
		}
	}
	root := checkoutOf(words)
	return source{defaultConfig(root), "the default of the checkout that the command lies in"}, root != ""
}

// scriptWords are a command's words, and behind each those of the script that it
// may be, as `sh -c` has one: near enough, without a shell's rules.
func scriptWords(command []string) (words []string) {
	const most = 1000 // a command with more is one with a long list of files
	for _, word := range command[:min(len(command), most)] {
		words = append(words, word)
		apart := func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"", r) }
		if parts := strings.FieldsFunc(word, apart); len(parts) > 1 {
			words = append(words, parts...)
		}
	}
	return words
}

// valuesOf are the values that an option is given, as the next word or after =.
func valuesOf(option string, words []string) (values []string) {
	for i, word := range words {
		if value, ok := strings.CutPrefix(word, option+"="); ok {
			values = append(values, value)
		} else if word == option && i+1 < len(words) {
			values = append(values, words[i+1])
		}
	}
	return values
}

// checkoutOf is the repository root of the program that a command runs, where it
// has a scrape config; "" else. The program may stand behind others, as with
// `timeout 6h ./scripts/run.sh`, so that the first word counts that is one.
func checkoutOf(words []string) string {
	for _, word := range words {
		if !strings.Contains(word, "/") || executable(word) != nil {
			continue
		}
		if root := repositoryRoot(word); exists(defaultConfig(root)) {
			return root
		}
	}
	return ""
}

// envFileOf is the file of variables that a runner of this kind reads before it
// locks, and those that it sets there by NAME=VALUE lines, as a shell reads them.
func envFileOf(command []string) (file string, variables map[string]string) {
	words := scriptWords(command)
	named := append(valuesOf("--env-file", words), os.Getenv("DCE_ENV_FILE"))
	if root := checkoutOf(words); root != "" {
		named = append(named, filepath.Join(root, "scrape.env"))
	}
	file = cmp.Or(named...)
	data, _ := os.ReadFile(file)
	variables = map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		variables[strings.TrimSpace(strings.TrimPrefix(name, "export "))] = strings.Trim(value, `"'`)
	}
	return file, variables
}

func defaultConfig(root string) string { return filepath.Join(root, "config", "scrape-targets.json") }

// repositoryRoot is DCE_REPO_ROOT; else the nearest folder at or above start, a
// file or folder, that holds .git; else the parent of a folder named config;
// else the starting folder. It is absolute and without links, so that one
// checkout has one root however it is reached.
func repositoryRoot(start string) string {
	variable := os.Getenv("DCE_REPO_ROOT")
	folder := absolute(cmp.Or(variable, start))
	if resolved, err := filepath.EvalSymlinks(folder); err == nil {
		folder = resolved
	}
	if variable != "" {
		return folder
	}
	if !exists(folder + "/.") {
		folder = filepath.Dir(folder)
	}
	for above, below := folder, ""; above != below; above, below = filepath.Dir(above), above {
		if exists(above + "/.git") {
			return above
		}
	}
	if filepath.Base(folder) == "config" {
		return filepath.Dir(folder)
	}
	return folder
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// absolute is path made absolute without a look at the file system, so that
// what is said of it can be found from anywhere. Not filepath.Abs, which goes by
// the variable PWD, and takes "link/.." for nothing.
func absolute(path string) string {
	if cwd, err := syscall.Getwd(); err == nil && !strings.HasPrefix(path, "/") {
		return cwd + "/" + strings.TrimPrefix(path, "./")
	}
	return path
}
