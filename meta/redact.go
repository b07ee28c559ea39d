package meta

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// hidden is shown in place of a secret.
const hidden = "***"

// form is one way in which a secret stands in a text, as unquote makes it: behind group 1 of its
// pattern, if group 2, where there is one, is a name that says so, and before one of stops.
type form struct {
	example string
	pattern func() *regexp.Regexp
	stops   string
}

const (
	atWord, atLine, atEnd = " \t\r\n;&|)", "\r\n", "" // stops
	atLast                = "@"                       // the one that the pattern ends with

	// secretName says of its value that it is a secret, unless it has an otherWord.
	// Short words count at the end only: --pass, not --pass-through.
	secretName = `([\w.-]*(?:(?:token|passw|passphrase|secret|authorization|cookie|credential|(?:api|access|auth)[-_.\s]?key)[\w.-]*|` +
		`(?:pass|bearer|\bauth|_auth)\d*))`
	index  = `(?:\[\w*\])?[\])]*` // of a variable: TOKEN[0], env["TOKEN"]
	setter = `\b(?:set|setx|setenv|config|export|put|with|arg)[\s(]+(?:-\S+\s+)*|\blogin\s+\S+\s+`
	// The rest of a command, to some word; in a word, what looks like its end is none.
	command = `(?:[^;&|\n]|[;&|][^\s;&|]|[;&|\n][^\f]*\f)*?[\s,]`

	// Discord's: base64url of an id (23 characters and more, of which unquote may take two), of a time, a signature.
	discordToken = `[\w-]{21,28}\.[\w-]{6,7}\.[\w-]{27}|mfa\.[\w-]{20}`
	otherTokens  = `(?:gh[pousr]|github_pat)_\w{16}|\b(?:akia|asia)[a-z0-9]{16}\b|\b(?:xox[a-z]|xapp)-[\w-]{8}`
)

var forms = []form{
	{`TOKEN=a`, lazy(`(` + secretName + index + `[+?]?=+[>~]?)`), atWord},
	{`token = a b`, lazy(`(` + secretName + index + `[ \t\f]+(?:[+?:]?=+>?|<<<)[ \t\f]*)`), atLine},
	{`Authorization: Bot a`, lazy(`((?:^|[^\w/.-])/?` + secretName + `[ \t\f]*:[\s|>]*)`), atLine},
	{`run Bearer a`, lazy(`((?:\bbearer|authorization:\s*(?:bot|basic|digest|token))\s+)`), atWord},
	{`--token a`, lazy(`(\B-` + secretName + `[\s,]+)`), atWord},
	{`set -x TOKEN a`, lazy(`((?:` + setter + `|(?:^|\s)[\w-]+\.)` + secretName + `[\s,]+(?:--?\w+[\s=]+)?)`), atWord},
	{`putenv("TOKEN", "a")`, lazy(`([(\[]` + secretName + `\s*,\s*)`), atWord},
	{`<token>a</token>`, lazy(`(<(?:[^<>]*\b(?:name|key|id)=|\w+:)?` + secretName + `(?:\s[^<>]*=[^<>]*)?>)`), atEnd},
	{`{"name": "token", "value": "a"}`, lazy(`(\b(?:name|key|id)\s*[:=]\s*` + secretName + `[^\w.{}<>-][^{}<>]*?\bvalue\s*[:=])`), atEnd},
	{`DiscordChatExporter.Cli export -t a`, lazy(`(discordchatexporter` + command + `-t[\s=,]*)[^\s=,*]`), atWord},
	{`curl -u user:a`, lazy(`(\bcurl\b` + command + `(?:-[a-z]*?u|--(?:proxy-)?user|-b)[\s=,]*)(?::|[^\s:=,*]+[:=])`), atWord},
	{`https://user:a@host/`, lazy(`(://[^\s/:@\[]*:)(?:[^\s/?#]+|\d*[^\s\d/]\S*)@`), atLast}, // no port
	{`https://a@host/`, lazy(`(https?://)[^\s/:@]+@`), atLast},
	{`-----BEGIN PRIVATE KEY-----`, lazy(`(-----begin [\w ]*private key)`), atEnd},
	{`/webhooks/1234/a`, lazy(`(webhooks/\d+/)[\w-]`), atWord},
	{`ghp_ABCDEFGHIJKLMNOPQRSTUV`, lazy(`()(?:` + discordToken + `|` + otherTokens + `)`), atWord},
}

var (
	// otherWord is in names that are of no secret, as the number of tokens, or the file with one.
	otherWord = lazy(`^-*no[-_]|(?:max|min|num|total)[-_.]?(?:new[-_.]?)?token|tokens?[-_.]?per|tokeniz|passwordless|(?:by|com|over|sur|tres|under)pass$|` +
		`(?:count|limit|length|size|ttl|timeout|file|path|dir|jar|stdin|type)s?$`)
	marked = lazy(`\x01+`)             // by hide
	script = lazy(`\x00-[a-z]*c\x00$`) // what stands before one
)

func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// Redact hides the secrets (contract, "What is locked, and the record") in a text that may be a
// shell command, a word of one, or a script. Redacting again changes nothing.
func Redact(text string) string { return redact("\n" + text)[1:] }

// redact is Redact for a command's words, each with a NUL before it: all of a word
// is hidden that a lead leads to or begins, unless it is a script.
func redact(text string) string {
	for range 5 { // what was hidden may uncover another form, but not often
		before := text
		if text = hide(text); text == before {
			return text
		}
	}
	return "\x00" + hidden
}

// hide hides what the forms find in text as it is. All is found before anything
// is hidden: hiding too much leaves no other secret without its lead.
func hide(text string) string {
	plain, at := unquote(text)
	if harmless(plain) {
		return text
	}
	found := []byte(text)
	for _, f := range forms {
		find := f.pattern().FindStringSubmatchIndex
		rest, at := plain, at
		for m := find(rest); m != nil; m = find(rest) {
			name := rest[m[len(m)-2]:m[len(m)-1]]
			if len(m) == 4 || !otherWord().MatchString(name) {
				start := at[m[3]]
				end := f.end(text, at[m[len(m)-2]], start, at[m[1]-1])
				copy(found[start:end], strings.Repeat("\x01", end-start))
			}
			rest, at = rest[m[1]:], at[m[1]:]
		}
	}
	return marked().ReplaceAllLiteralString(string(found), hidden)
}

// harmless tells whether plain has none of the forms, which cost more than all the rest of a run.
func harmless(plain string) bool {
	const hints = "token pass secret auth cookie credential bearer key curl discordchatexporter :// webhooks mfa. gh akia asia xox xapp"
	hasHint := func(hint string) bool { return strings.Contains(plain, hint) }
	mayBeToken := func(word string) bool { return len(word) >= 56 && strings.Count(word, ".") >= 2 } // Discord's
	return !slices.ContainsFunc(strings.Fields(hints), hasHint) && !slices.ContainsFunc(strings.Fields(plain), mayBeToken)
}

// end is where in text a secret ends that begins at start, in a match with its name at name and its
// last character at last: rather too late than too early, and with the word where it is not plain.
func (f form) end(text string, name, start, last int) int {
	rest, _, _ := strings.Cut(text[start:], "\x00")
	stops, quote := f.stops, byte(0)
	switch lead := strings.TrimLeft(text[name:start], `\`); {
	case stops == atLast:
		return last
	case text[start-1] == 0, text[name-1] == 0 && !script().MatchString(text[max(0, name-9):name]):
		stops = atEnd
	case strings.HasPrefix(rest, hidden):
		return start
	case strings.LastIndexAny(lead, `'"`) == 0: // in quotes that the name begins
		stops = lead[:1]
	}
	for i := range min(len(rest), 512) { // a hostile text has many long ones
		switch c := rest[i]; {
		case strings.IndexByte("\\`([{<", c) >= 0:
			return start + len(rest)
		case quote == 0 && strings.IndexByte(stops, c) >= 0:
			return start + i
		case c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		}
	}
	return start + len(rest)
}

// unquote is text in lower case, without quotes, backslashes, and the escapes of an address (%3A),
// a form feed between words; and at[i], where in text what follows i bytes of that begins.
func unquote(text string) (plain string, at []int) {
	b, at := make([]byte, 0, len(text)), make([]int, 1, len(text)+1)
	for i := 0; i < len(text); {
		c := text[i]
		if code, err := url.PathUnescape(text[i:min(i+3, len(text))]); c == '%' && err == nil {
			c, i = code[0], i+2
		}
		i++
		switch {
		case strings.IndexByte(`'"\`, c) >= 0:
			continue
		case c == 0:
			c = '\f'
		case strings.HasSuffix(text[:i], "\\\n"):
			c = ' '
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		b, at = append(b, c), append(at, i)
	}
	return string(b), at
}
