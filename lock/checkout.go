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
		if namesArchiveRoot(path) {
			return source{absolute(path), "named by the command's own words"}, true
		}
	}
	if root := checkoutOf(words); root != "" {
		return source{defaultConfig(root), "the default of the checkout that the command lies in"}, true
	}
	return source{}, false
}

// scriptWords are a command's words, and those of the scripts among them, as
// `sh -c` has one: near enough, for what is looked for, without a shell's rules.
func scriptWords(command []string) (words []string) {
	const most = 1000 // a command with more is one with a long list of files
	for _, word := range command[:min(len(command), most)] {
		parts := []string{word}
		if strings.ContainsAny(word, " \n;&|") && !exists(word) {
			parts = strings.FieldsFunc(word, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"", r) })
		}
		words = append(words, parts...)
	}
	return words
}

// valuesOf are the values that an option is given, as the next word or after =.
func valuesOf(option string, words []string) (values []string) {
	for i, word := range words {
		value, ok := strings.CutPrefix(word, option+"=")
		if word == option && i+1 < len(words) {
			value, ok = words[i+1], true
		}
		if ok && value != "" {
			values = append(values, value)
		}
	}
	return values
}

// checkoutOf is the repository root of the program that a command runs, where it
// has a scrape config; "" else. The program may stand behind others, as with
// `timeout 6h ./scripts/run.sh`, so that the first word counts that is one.
func checkoutOf(words []string) string {
	for _, word := range words {
		if !strings.Contains(word, "/") {
			continue
		}
		info, err := os.Stat(word)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if root := repositoryRoot(realFolder(word)); exists(defaultConfig(root)) {
			return root
		}
	}
	return ""
}

// envFileOf is the file of variables that a runner of this kind reads before it
// locks; "" where there is none.
func envFileOf(command []string) string {
	words := scriptWords(command)
	named := append(valuesOf("--env-file", words), os.Getenv("DCE_ENV_FILE"))
	if root := checkoutOf(words); root != "" {
		named = append(named, filepath.Join(root, "scrape.env"))
	}
	return cmp.Or(named...)
}

// variableIn is the value that a file of NAME=VALUE lines, as a shell reads
// them, gives to a variable; false where it gives it none.
func variableIn(file, name string) (value string, ok bool) {
	data, _ := os.ReadFile(file)
	for line := range strings.Lines(string(data)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if v, found := strings.CutPrefix(strings.TrimSpace(line), name+"="); found {
			value, ok = strings.Trim(v, `"'`), true
		}
	}
	return value, ok
}

func defaultConfig(root string) string { return filepath.Join(root, "config", "scrape-targets.json") }

// repositoryRoot is DCE_REPO_ROOT; else the nearest folder at or above folder
// that holds .git; else the parent of a folder named config; else folder itself.
func repositoryRoot(folder string) string {
	if root := os.Getenv("DCE_REPO_ROOT"); root != "" {
		return realFolder(root + "/.")
	}
	for above := folder; ; above = filepath.Dir(above) {
		if exists(filepath.Join(above, ".git")) {
			return above
		}
		if above == "/" {
			break
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

// realFolder is the folder that a file lies in, absolute and without links, so
// that one checkout has one root however it is reached; of a file that does not
// exist, as far as it can be told.
func realFolder(path string) string {
	if resolved, err := filepath.EvalSymlinks(absolute(path)); err == nil {
		if info, err := os.Stat(resolved); err == nil && info.IsDir() {
			return resolved
		}
		return filepath.Dir(resolved)
	}
	folder, _ := physical(folderOf(path))
	return folder
}

// physical is the absolute path of a folder, without links.
func physical(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		// os.Getwd goes by the variable PWD, which may lead through links.
		cwd, err := syscall.Getwd()
		if err != nil {
			return "", err
		}
		path = cwd + "/" + path
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved, nil
	}
	return filepath.Clean(path), nil
}

// absolute is path made absolute without a look at the file system, so that
// what is said of it can be found from anywhere.
func absolute(path string) string {
	if cwd, err := syscall.Getwd(); err == nil && !strings.HasPrefix(path, "/") {
		return cwd + "/" + strings.TrimPrefix(path, "./")
	}
	return path
}

// namesArchiveRoot tells whether a file is a scrape config: a JSON object with
// an archive_root.
func namesArchiveRoot(path string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	config, _ := parseObject(data)
	_, ok := config["archive_root"]
	return ok
}
