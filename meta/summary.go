package meta

import (
	"fmt"
	"strings"
	"unicode"
)

const (
	maxSummary = 500 // bytes of a command are shown
	// mostRead bytes of it are looked at: more, as secrets are long and what hides them is short.
	mostRead = 16 << 10
	mark     = "…" // stands at the end of a text that was cut
)

// Summary is a command as records and messages show it (contract, "What is locked, and the
// record"): without secrets, quoted for a shell if need be, one printable line, at most 500 bytes.
func Summary(words []string) string {
	text := "\x00" + strings.Join(words, "\x00")
	if len(text) > mostRead {
		// The word that goes beyond is left out: a part of a secret does not look like one.
		text = text[:strings.LastIndexByte(text[:mostRead], 0)+1] + mark
	}
	words = strings.Split(redact(text)[1:], "\x00")
	for i, word := range words {
		words[i] = quote(word)
	}
	return cut(strings.Join(words, " "))
}

// quote quotes word for a POSIX shell where it needs it. What is not printable becomes an octal
// escape in $'…' (POSIX.1-2024), so that any word still reads back as it was.
func quote(word string) string {
	plain, printable := strings.ReplaceAll(word, hidden, ""), Printable(word) == word
	switch {
	case printable && word != "" && !strings.ContainsAny(plain, " |&;<>()$`\\\"'*?[]#~!{}^"):
		return word
	case printable:
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	escapes := strings.NewReplacer("\n", `\n`, "\t", `\t`, "'", `\'`, `\`, `\\`)
	var b strings.Builder
	for _, character := range strings.Split(escapes.Replace(word), "") {
		if Printable(character) == character {
			b.WriteString(character)
			continue
		}
		for _, c := range []byte(character) {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return "$'" + b.String() + "'"
}

// cut shortens text to maxSummary bytes, at a character, and marks it as cut.
func cut(text string) string {
	if len(text) > maxSummary {
		text = strings.ToValidUTF8(text[:maxSummary-len(mark)], "") + mark
	}
	return text
}

// shown is a text that somebody else chose, without secrets, printable, and cut.
func shown(text string) string { return cut(Printable(Redact(text))) }

// Printable is s with all replaced that may change what a terminal, a log or a script makes of the
// text around it: control characters, line separators, bidirectional controls, invalid UTF-8.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}
