package meta

import (
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// hidden is shown in place of a secret.
const hidden = "***"

// form is one way in which a secret stands in a text, as unquote makes it. Group
// 1 of its pattern is the lead, which stays readable; group 2, if any, a name in
// it that has to say that a secret follows. That one ends where end says, or,
// without an end, before the @ that the pattern ends with.
type form struct {
	example string
	pattern func() *regexp.Regexp
	end     func(rest string) int
}

const (
	// secretName may say that its value is a secret: secretWord decides.
	secretName = `([\w.-]*(?:token|pass|secret|auth|cookie|credential|bearer|(?:api|access)[-_. ]?key)[\w.-]*)`
	index      = `(?:\[\w*\])?[\])]*` // of a variable: TOKEN[0], env["TOKEN"]
	setter     = `\b(?:set|setx|setenv|config|export|put|with|arg)[\s(]+(?:-\S+\s+)*|\blogin\s+\S+\s+`
	command    = `(?:[^;&|\n]|[;&|][^\s;&|])*?[\s,]` // the rest of a command, to some word

	// discordToken is the shape of the tokens that Discord gives to bots
	// and users: base64url of an id, of a time, and a signature; or mfa.….
	discordToken = `[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27}|mfa\.[\w-]{20}`
)

var forms = []form{
	{`TOKEN=a`, lazy(`(` + secretName + index + `[+?]?=+[>~]?)`), toWordEnd},
	{`token = a b`, lazy(`(` + secretName + index + `[ \t]+(?:[+?:]?=+>?|<<<)[ \t]*)`), toLineEnd},
	{`Authorization: Bot a`, lazy(`((?:^|[^\w/.-])/?` + secretName + `[ \t]*:\s*)`), toLineEnd},
	{`run Bearer a`, lazy(`((?:\bbearer|authorization:\s*(?:bot|basic|digest|token))\s+)`), toWordEnd},
	{`--token a`, lazy(`(\B-` + secretName + `[\s,]+)`), toWordEnd},
	{`set -x TOKEN a`, lazy(`((?:` + setter + `|(?:^|\s)[\w-]+\.)` + secretName + `[\s,]+(?:--?\w+[\s=]+)?)`), toWordEnd},
	{`putenv("TOKEN", "a")`, lazy(`([(\[]` + secretName + `\s*,\s*)`), toWordEnd},
	{`<token>a</token>`, lazy(`(<(?:[^<>]*\b(?:name|key|id)=|\w+:)?` + secretName + `(?:\s[^<>]*=[^<>]*)?>)`), toEnd},
	{`{"name": "token", "value": "a"}`, lazy(`(\b(?:name|key|id)\s*[:=]\s*` + secretName + `[^{}<>]*?\bvalue\s*[:=])`), toEnd},
	{`DiscordChatExporter.Cli export -t a`, lazy(`(discordchatexporter` + command + `-t[\s=,]*)[^\s=,*]`), toWordEnd},
	{`curl -u user:a`, lazy(`(\bcurl\b` + command + `(?:-[a-z]*?u|--(?:proxy-)?user|-b)[\s=,]*)(?::|[^\s:=,*]+[:=])`), toWordEnd},
	{`https://user:a@host/`, lazy(`(://[^\s/:@\[]*:)(?:[^\s/?#]+|\d*[^\s\d/]\S*)@`), nil}, // no port
	{`https://a@host/`, lazy(`(https?://)[^\s/:@]+@`), nil},
	{`-----BEGIN PRIVATE KEY-----`, lazy(`(-----begin [\w ]*private key)`), toEnd},
	{`/webhooks/1234/a`, lazy(`(webhooks/\d+/)[\w-]`), toWordEnd},
	{`mfa.ABCDEFGHIJKLMNOPQRSTUV`, lazy(`()(?:` + discordToken + `)`), toWordEnd},
	{`ghp_ABCDEFGHIJKLMNOPQRSTUV`, lazy(`()(?:(?:gh[pousr]|github_pat)_\w{16}|\b(?:akia|asia)[a-z0-9]{16}\b|\b(?:xox[a-z]|xapp)-[\w-]{8})`), toWordEnd},
}

// hints are what every text has, as unquote makes it, that has one of the forms
// but for a Discord token without mfa.
var hints = []string{"token", "pass", "secret", "auth", "cookie", "credential", "bearer", "key", "curl", "discordchatexporter", "://",
	"webhooks", "mfa.", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "akia", "asia", "xox", "xapp-"}

// A name says that what it names is a secret if it has a secretWord, like an API
// key, and no otherWord, like the number of tokens, or the file that one is in.
var (
	// Short words count at the end only: --pass, not --pass-through.
	secretWord = lazy(`token|passw|passphrase|secret|authorization|cookie|credential|(?:api|access|auth)[-_. ]?key|(?:pass|bearer|\bauth|_auth)\d*$`)
	otherWord  = lazy(`^-*no[-_]|(?:max|min|num|total)[-_.]?(?:new[-_.]?)?token|tokens?[-_.]?per|tokeniz|passwordless|(?:by|com|over|sur|tres|under)pass$|` +
		`(?:count|limit|length|size|ttl|timeout|file|path|dir|jar|stdin|type)s?$`)
)

func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// Redact hides the secrets (contract, "Files") in a text that may be a shell
// command, a word of one, or a script. Redacting again changes nothing.
func Redact(text string) string { return redactWords([]string{"-c", text})[1] }

// redactWords hides the secrets in a command's words: the whole word, spaces
// included, where an option, a variable or a header leads to it or begins it. A
// script for `sh -c` may begin with a variable too, and stays readable after it.
func redactWords(words []string) []string {
	if harmless(strings.Join(words, " ")) {
		return words
	}
	// What was hidden may uncover another form, but not often.
	for range 5 {
		before := words
		if words = hideIn(words); slices.Equal(words, before) {
			return words
		}
	}
	return slices.Repeat([]string{hidden}, len(words))
}

// harmless tells whether text certainly holds no secret. Most commands are, and
// the patterns cost more than all the rest of a run. A discordToken has 58 bytes.
func harmless(text string) bool {
	plain, _ := unquote(text)
	isThere := func(hint string) bool { return strings.Contains(plain, hint) }
	isOther := func(r rune) bool { return !strings.ContainsRune("-._0123456789abcdefghijklmnopqrstuvwxyz", r) }
	isLong := func(part string) bool { return len(part) >= 58 }
	return !slices.ContainsFunc(hints, isThere) && !slices.ContainsFunc(strings.FieldsFunc(plain, isOther), isLong)
}

// unquote is text in lower case, without quotes, backslashes, and the escapes of
// an address (%3A); and at[i], where in text what follows i bytes of that begins.
func unquote(text string) (plain string, at []int) {
	b, at := make([]byte, 0, len(text)), make([]int, 1, len(text)+1)
	for i, end := 0, 0; i < len(text); i = end {
		c := text[i]
		end = i + 1
		if c == '%' && i+2 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				c, end = byte(code), i+3
			}
		}
		switch {
		case strings.HasPrefix(text[i:], "\\\n"):
			c, end = ' ', i+2
		case c == '\'' || c == '"' || c == '\\':
			continue
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		b, at = append(b, c), append(at, end)
	}
	return string(b), at
}

var shellScript = lazy(`^-[a-z]*c$`)                                          // the option that has one
var separators = strings.NewReplacer(";", " ", "&", " ", "|", " ", "\n", " ") // of commands, in a script only

// hideIn hides what the forms find in words as they are. All is found before
// anything is hidden: hiding too much leaves no other secret without its lead.
func hideIn(words []string) []string {
	text, search := strings.Join(words, " "), slices.Clone(words)
	starts, isScript := []int{0}, make([]bool, len(words))
	for i, word := range words {
		starts = append(starts, starts[i]+len(word)+1)
		if isScript[i] = i > 0 && shellScript().MatchString(words[i-1]); !isScript[i] {
			search[i] = separators.Replace(word)
		}
	}
	plain, at := unquote(strings.Join(search, " "))
	ends := make([]int, len(text)+1) // of the secrets that begin at each byte
	for _, f := range forms {
		for _, m := range f.matches(plain) {
			name, start := at[min(m[len(m)-2], m[3])], at[m[3]]
			i := sort.SearchInts(starts, start+1) - 1 // the word that start is in
			rest, lead := text[start:starts[i]+len(words[i])], strings.TrimLeft(text[name:start], `\`)
			end := len(rest)
			switch {
			case !isScript[i] && (start == starts[i] || name == starts[i]): // all of the word
			case strings.HasPrefix(rest, hidden):
				continue
			case f.end == nil:
				end = min(at[m[1]-1]-start, end)
			case strings.LastIndexAny(lead, `'"`) == 0: // in quotes that the name begins
				end = toQuote(rest, lead[0])
			default:
				end = f.end(rest)
			}
			ends[start] = max(ends[start], start+end)
		}
	}
	for i, word := range words {
		var b []byte
		for at, end := starts[i], 0; at < starts[i]+len(word); at++ {
			if at >= end && ends[at] > at {
				b = append(b, hidden...)
			}
			if end = max(end, ends[at]); at >= end {
				b = append(b, text[at])
			}
		}
		search[i] = string(b)
	}
	return search
}

// matches are the form's in plain, those in the value of another included.
func (f form) matches(plain string) (all [][]int) {
	for start := 0; start < len(plain); {
		m := f.pattern().FindStringSubmatchIndex(plain[start:])
		if m == nil {
			break
		}
		for i := range m {
			m[i] += start
		}
		if start = max(m[3], m[0]+1); f.end == nil {
			start = m[1] // linear: what is before the last @ is hidden
		}
		if name := plain[m[len(m)-2]:m[len(m)-1]]; len(m) == 4 || secretWord().MatchString(name) && !otherWord().MatchString(name) {
			all = append(all, m)
		}
	}
	return all
}

// The functions to… tell how many bytes of rest a value has, rather too many than
// too few: where its end is not plain to see, it is all the rest.

func toEnd(rest string) int { return len(rest) }

func toLineEnd(rest string) int { return max(toWordEnd(rest), strings.IndexAny(rest+"\n", "\r\n")) }

func toWordEnd(rest string) int {
	for i := 0; i < min(len(rest), 512); i++ { // a hostile text has many long ones
		switch c := rest[i]; {
		case strings.IndexByte(" \t\r\n;&|)", c) >= 0:
			return i
		case strings.IndexByte("\\`([{<", c) >= 0:
			return len(rest)
		case c == '\'' || c == '"':
			i += 1 + toQuote(rest[i+1:], c)
		}
	}
	return len(rest)
}

// toQuote is to the quote that closes what rest begins in.
func toQuote(rest string, quote byte) int {
	end := strings.IndexByte(rest, quote)
	if end < 0 || strings.ContainsAny(rest[:end], "\\`({") {
		end = len(rest)
	}
	return end
}
