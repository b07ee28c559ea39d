package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"
)

// readConfig reads archive_root from the scrape config at path. It is "" when
// the config is sound and names none (absent, null or empty); anything else
// that is not an absolute path is an error, never another lock.
func readConfig(path string) (archiveRoot string, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "", fail(Missing, "config %s is a folder; name the JSON file in it", path)
	case err != nil:
		return "", fail(Missing, "config %s cannot be read: %w (name another with --config or DCE_CONFIG_FILE)", path, bare(err))
	}
	return parseConfig(path, data)
}

func parseConfig(path string, data []byte) (archiveRoot string, err error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if len(bytes.TrimSpace(data)) == 0 {
		return "", fail(BadConfig, "config %s is empty", path)
	}
	// encoding/json would replace what is not UTF-8, and lock another path.
	if !utf8.Valid(data) {
		return "", fail(BadConfig, "config %s is not UTF-8 text", path)
	}

	// A map, because struct keys are matched without regard to case.
	var config map[string]json.RawMessage
	err = json.Unmarshal(data, &config)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:syntax.Offset], []byte("\n"))
		return "", fail(BadConfig, "config %s is not valid JSON: line %d: %w", path, line, err)
	}
	if err != nil || config == nil {
		return "", fail(BadConfig, "config %s is not a JSON object", path)
	}
	value, ok := config["archive_root"]
	if !ok {
		return "", nil
	}
	if err := json.Unmarshal(value, &archiveRoot); err != nil {
		return "", fail(BadConfig, "config %s: archive_root is not a string", path)
	}
	if archiveRoot == "" {
		return "", nil
	}
	return absoluteRoot(path, archiveRoot)
}

// absoluteRoot puts the user's home in place of a leading ~, and refuses what
// is still relative: it would be another lock in every working directory.
func absoluteRoot(config, root string) (string, error) {
	absolute := root
	if root == "~" || strings.HasPrefix(root, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fail(BadConfig, "config %s: archive_root %q needs the home folder: %w", config, root, err)
		}
		absolute = home + root[1:]
	}
	if !strings.HasPrefix(absolute, "/") {
		return "", fail(BadConfig, "config %s: archive_root %q is not an absolute path (begin it with / or ~/)", config, root)
	}
	if strings.ContainsRune(absolute, 0) {
		return "", fail(BadConfig, "config %s: archive_root %q holds a NUL character", config, root)
	}
	return absolute, nil
}

// bare is err without the operation and path that an *os.PathError adds,
// where the message around it names them already.
func bare(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}
