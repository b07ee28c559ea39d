package lock

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever the config holds, what is locked is under an absolute path.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{`{"archive_root": "/a"}`, `{"archive_root": "~/a"}`, `{"archive_root": null}`, `{}`, `[]`, "", "\uFEFF{}", `{"archive_root": "a"}`,
		`{"archive_root": 1}`, `{"archive_root": "/a\u0000"}`, `{"archive_root": "/\ud800"}`, `{"Archive_Root": "/a"}`, `{"archive_root": "/a", "archive_root": "/b"}`, "{\n,}", "{}{}"} {
		f.Add([]byte(seed))
	}
	f.Setenv("HOME", "/home/op")
	config := source{path: f.TempDir() + "/c"}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(config.path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		root, _, err := readConfig(config)
		if err == nil && root != "" && (root[0] != '/' || strings.ContainsRune(root, 0) || !utf8.ValidString(root)) {
			t.Errorf("%q: %q, %v", data, root, err)
		}
		if failed := new(Error); err != nil && (!errors.As(err, &failed) || failed.Kind != BadConfig) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

func FuzzWait(f *testing.F) {
	for _, seed := range []string{"30", "0.5", "90s", "2h", "forever", "-1", "1e400", "NaN", "9223372036.9", "0x1p10", "1_0", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var wait Wait
		if err := wait.UnmarshalText([]byte(text)); err != nil && wait != 0 || wait < 0 {
			t.Errorf("%q: %v, %v", text, wait, err)
		}
	})
}
