package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// A source is a config, and which rule named it.
type source struct{ path, rule string }

func (s source) String() string { return fmt.Sprintf("config %s (%s)", s.path, s.rule) }

// readConfig reads archive_root from a scrape config: "" when that is sound and
// names none (absent, null or empty). names tells whether it is a JSON object with
// one, sound or not. What is not sound is an error, never another lock.
func readConfig(from source) (root string, names bool, err error) {
	data, err := os.ReadFile(from.path)
	if err != nil {
		return "", false, fail(Missing, "%v cannot be read: %w", from, errors.Unwrap(err))
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	var config map[string]json.RawMessage // struct keys are matched without regard to case
	err = json.Unmarshal(data, &config)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(data[:syntax.Offset], []byte("\n"))
		return "", false, fail(BadConfig, "%v is not valid JSON: line %d: %w", from, line, err)
	}
	if err != nil || config == nil {
		return "", false, fail(BadConfig, "%v is not a JSON object", from)
	}
	value, names := config["archive_root"]
	// encoding/json would replace what is not UTF-8, and lock another path.
	if !utf8.Valid(data) {
		return "", names, fail(BadConfig, "%v is not UTF-8 text", from)
	}
	if names && json.Unmarshal(value, &root) != nil {
		return "", names, fail(BadConfig, "%v: archive_root is not a string", from)
	}
	if home, err := os.UserHomeDir(); err == nil && strings.HasPrefix(root+"/", "~/") {
		root = home + root[1:]
	}
	switch {
	case strings.TrimSpace(root) != root: // which scripts that read the same config drop, as they do NUL
		err = fail(BadConfig, "%v: archive_root %q has white space at its ends; take it out", from, root)
	case strings.ContainsRune(root, 0):
		err = fail(BadConfig, "%v: archive_root %q holds a NUL character", from, root)
	case root != "" && root[0] != '/': // another lock in every working directory
		err = fail(BadConfig, "%v: archive_root %q is not an absolute path; begin it with /, or with ~/ where HOME is set", from, root)
	}
	return root, names, err
}
