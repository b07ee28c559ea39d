package meta

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSummary is the longest summary of a command, in bytes.
const maxSummary = 500

// mostRead is how much of a command is looked at for its summary, in bytes.
// Much more than is shown, as secrets are long and what hides them is short.
const mostRead = 16 << 10

// mark stands at the end of a text that was cut.
const mark = "…"

// Summary is a command as the record and the messages show it: without its
// secrets, each word quoted for a shell where it needs it, one line of
// printable text, at most 500 bytes (contract, "Files").
func Summary(words []string) string {
	read := 0
	for i, word := range words {
		if read += len(word) + 1; read > mostRead {
			// The word that goes beyond is left out, not cut: a part
			// of a secret does not look like one.
			words = append(slices.Clone(words[:i]), mark)
			break
		}
	}
	shown := make([]string, len(words))
	for i, word := range redactWords(words) {
		shown[i] = quote(word)
	}
	return cut(strings.Join(shown, " "))
}

// Verbatim is a command quoted for a shell, to be typed again; "" where it
// would not be the same, as a secret is hidden in it or it is too long.
func Verbatim(words []string) string {
	text := Summary(words)
	var plain []string
	for _, word := range words {
		plain = append(plain, quote(word))
	}
	if text != strings.Join(plain, " ") {
		return ""
	}
	return text
}

// quote quotes word for a POSIX shell where it needs it. What is not printable
// becomes an octal escape in $'…' (POSIX.1-2024), so that any word still
// reads back as it was.
func quote(word string) string {
	plain := strings.ReplaceAll(word, hidden, "")
	switch {
	case !isPrintable(word):
		return "$'" + escape(word) + "'"
	case word == "" || strings.ContainsFunc(plain, needsQuotes):
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

func needsQuotes(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_@%+=:,./-"+mark, r)
}

func escape(word string) string {
	var b strings.Builder
	for len(word) > 0 {
		r, size := utf8.DecodeRuneInString(word)
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == utf8.RuneError && size == 1 || !unicode.IsPrint(r):
			for _, c := range []byte(word[:size]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		default:
			b.WriteRune(r)
		}
		word = word[size:]
	}
	return b.String()
}

// cut shortens text to maxSummary bytes, at a character, and marks it as cut.
func cut(text string) string {
	if len(text) <= maxSummary {
		return text
	}
	end := maxSummary - len(mark)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// shown is a text that somebody else chose, without secrets, printable, and cut.
func shown(text string) string { return cut(Printable(Redact(text))) }

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Printable is s with every character replaced that could change what a
// terminal, a log or a line-reading script makes of the text around it:
// control characters, line separators, bidirectional controls, invalid UTF-8.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}
