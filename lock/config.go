package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// readConfig reads archive_root from a scrape config. It is "" when the config
// is sound and names none (absent, null or empty); anything else that is not an
// absolute path is an error, never another lock.
func readConfig(from source) (archiveRoot string, err error) {
	data, err := os.ReadFile(from.path)
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "", fail(Missing, "%v is a folder; name the JSON file in it", from)
	case err != nil:
		return "", fail(Missing, "%v cannot be read: %w", from, bare(err))
	}
	return parseConfig(from, data)
}

func parseConfig(from source, data []byte) (archiveRoot string, err error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if len(bytes.TrimSpace(data)) == 0 {
		return "", fail(BadConfig, "%v is empty", from)
	}
	// encoding/json would replace what is not UTF-8, and lock another path.
	if !utf8.Valid(data) {
		return "", fail(BadConfig, "%v is not UTF-8 text", from)
	}
	config, err := parseObject(data)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:syntax.Offset], []byte("\n"))
		return "", fail(BadConfig, "%v is not valid JSON: line %d: %w", from, line, err)
	}
	if err != nil || config == nil {
		return "", fail(BadConfig, "%v is not a JSON object", from)
	}
	value, ok := config["archive_root"]
	if !ok {
		return "", nil
	}
	if err := json.Unmarshal(value, &archiveRoot); err != nil {
		return "", fail(BadConfig, "%v: archive_root is not a string", from)
	}
	if archiveRoot == "" {
		return "", nil
	}
	return absoluteRoot(from, archiveRoot)
}

// parseObject reads a JSON object; nil without an error is JSON's null. A map,
// because struct keys are matched without regard to case.
func parseObject(data []byte) (config map[string]json.RawMessage, err error) {
	err = json.Unmarshal(bytes.TrimPrefix(data, []byte("\uFEFF")), &config)
	return config, err
}

// absoluteRoot puts the user's home in place of a leading ~, and refuses what
// is still relative, as it would be another lock in every working directory, and
// white space at the ends, which scripts that read the same config drop.
func absoluteRoot(from source, root string) (string, error) {
	absolute := root
	if root == "~" || strings.HasPrefix(root, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fail(BadConfig, "%v: archive_root %q needs the home folder: %w", from, root, err)
		}
		absolute = home + root[1:]
	}
	switch {
	case strings.TrimFunc(root, unicode.IsSpace) != root:
		return "", fail(BadConfig, "%v: archive_root %q has white space at its ends; take it out", from, root)
	case !strings.HasPrefix(absolute, "/"):
		return "", fail(BadConfig, "%v: archive_root %q is not an absolute path (begin it with / or ~/)", from, root)
	case strings.ContainsRune(absolute, 0):
		return "", fail(BadConfig, "%v: archive_root %q holds a NUL character", from, root)
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
