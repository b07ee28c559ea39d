package meta

import (
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"./run.sh", "scrape", "--target", "a_b-c@d%e+f=g:h,i/j.k"}, "./run.sh scrape --target a_b-c@d%e+f=g:h,i/j.k"},
		{[]string{"", " ", "a b", "$x", "*", "~", "über"}, `'' ' ' 'a b' '$x' '*' '~' über`},
		{[]string{"it's", `a\b`, `"`, "'"}, `'it'\''s' 'a\b' '"' ''\'''`},
		{[]string{"a\nb", "\x01", "\x1b[1m", "\xff'\\", "\u202e", "\u0085"}, `$'a\nb' $'\001' $'\033[1m' $'\377\'\\' $'\342\200\256' $'\302\205'`},
	} {
		if got := Summary(c.words); got != c.want {
			t.Errorf("Summary(%q)\n got %s\nwant %s", c.words, got, c.want)
		}
	}
}

func TestSummaryIsCutAtACharacter(t *testing.T) {
	for _, word := range []string{"x", "ü", "€", "𝄞"} {
		for filler := range 5 {
			got := Summary([]string{strings.Repeat("y", filler) + strings.Repeat(word, 600)})
			if len(got) > 500 || len(got) < 494 || !utf8.ValidString(got) || !strings.HasSuffix(got, word+"…") {
				t.Errorf("%d bytes: %s", len(got), got)
			}
		}
	}
	if exact := strings.Repeat("x", 500); Summary([]string{exact}) != exact {
		t.Error("500 bytes were cut")
	}
}

// What Summary quotes, bash reads back as the same words.
func TestSummaryReadsBack(t *testing.T) {
	words := []string{"a b", "", "it's", "$HOME `id` \"q\"", "tab\there", "line\nfeed", "\x01\x7f\xff", "\\", "!#&;|<>()[]{}?*~^", "=", "ü€𝄞"}
	out, err := exec.Command("bash", "-c", "printf '%s\\0' "+Summary(words)).Output()
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); err != nil || strings.Join(got, "\x00") != strings.Join(words, "\x00") {
		t.Errorf("got %q, want %q (%v)", got, words, err)
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"plain ü€ text":         "plain ü€ text",
		"\x1b]0;title\x07":      "?]0;title?",
		"a\nb\rc\td\x00e\x7f":   "a?b?c?d?e?",
		"\xff\xfe":              "?",
		"\u202eright\u2028left": "?right?left",
		"\u009b31m":             "?31m",
	} {
		if got := Printable(text); got != want {
			t.Errorf("Printable(%q) = %q, want %q", text, got, want)
		}
	}
}
