package meta

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// hidden is shown in place of a secret.
const hidden = "***"

// What a secret looks like (contract, "Files"). The patterns are compiled when
// first needed: a run that is refused by a flag error never needs them.
const (
	// secretName is a name that says what its value is.
	secretName = `[\w.-]*(?:token|passw(?:or)?d|secret|authorization|cookie|api[-_. ]?key)[\w.-]*`

	// assigns is what stands between a variable's or option's name and its
	// value: =, += and, of an array, [0]=.
	assigns = `(?:\[\w*\])?\+?=`

	// quoted is text in quotes, escaped quotes among them; quotes that are
	// never closed, because the text was cut, run to the end.
	quoted = `'[^']*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$)|\\"[^"]*(?:"|$)`

	// shellWord is one word of shell text, its quoted parts and command
	// substitutions included.
	shellWord = `(?:\*\*\*|(?:` + quoted + `|\$\([^)]*(?:\)|$)|\\.|[^\s'"\\;&|)])+)`

	// headerValue is what follows "Name: ", to the end of the quotes or of
	// the line: a header's value may have several words.
	headerValue = `(?:\*\*\*|` + quoted + `|[^'"\r\n]+)`

	// space parts words, in a shell's script or in a list of JSON.
	space = `["']?(?:\\\n|[\s,])+`

	// discordToken is the shape of the tokens that Discord gives to bots
	// and users: base64url of an id, of a time, and a signature; or mfa.….
	discordToken = `[\w-]{23,28}\.[\w-]{6,7}\.[\w-]{27,}|mfa\.[\w-]{20,}`

	// webhook is a Discord webhook's address, whose last part is a secret.
	webhook = `(/webhooks/\d+/)[\w-]+`
)

var (
	// secretOption is an option whose value is the next word, and
	// secretValue one, or a variable or header, whose value is the rest.
	secretOption = lazy(`^(?:--?` + secretName + `|` + secretName + `:)$`)
	secretValue  = lazy(`(?s)^((?:--?)?` + secretName + `(?:` + assigns + `|:\s*)).+$`)

	// shellScript is the shells' option whose value is a script, and scheme
	// the first word of an Authorization header's value.
	shellScript = lazy(`^-[a-z]*c$`)
	scheme      = lazy(`^(?:bot|bearer|basic|digest)$`)

	// rules find secrets in any text; group 1 is what stays readable.
	rules = []func() *regexp.Regexp{
		lazy(`("` + secretName + `(?:` + assigns + `|:\s*))(?:[^"\\]|\\.)+`),
		lazy(`('` + secretName + `(?:` + assigns + `|:\s*))[^']+`),
		lazy(`(\b` + secretName + `["']?\s*` + assigns + `\s*)` + shellWord),
		lazy(`(\b` + secretName + `\\?["']?\s*:\s*)` + headerValue),
		lazy(`((?:^|[\s'"])--?` + secretName + space + `)` + shellWord),
		lazy(`(://[^/\s:@]*:)[^/\s@]+`),
		lazy(webhook),
		lazy(discordToken),
	}
	exporterToken = lazy(`([\s'"]-t(?:` + space + `|=?))` + shellWord)
)

func lazy(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)` + pattern) })
}

// exporter tells whether text names DiscordChatExporter, whose -t option takes
// a token. Other programs' -t stays readable.
func exporter(text string) bool {
	return strings.Contains(strings.ToLower(text), "discordchatexporter")
}

// hints are what every secret has near it that is known by a name or an address.
var hints = []string{"token", "passw", "secret", "authorization", "cookie", "api", "://", "/webhooks/", "mfa.", "discordchatexporter"}

// harmless tells whether text certainly holds no secret. Most commands are, and
// the patterns cost more than all the rest of a run.
func harmless(text string) bool {
	const shortest = 23 + 1 + 6 + 1 + 27 // bytes of a discordToken
	run := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c >= utf8.RuneSelf: // patterns that ignore case match some of these
			return false
		case c == '-' || c == '.' || c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z':
			run++
		default:
			run = 0
		}
		if run >= shortest {
			return false
		}
	}
	text = strings.ToLower(text)
	return !slices.ContainsFunc(hints, func(hint string) bool { return strings.Contains(text, hint) })
}

// Redact hides the secrets in a text that may be a shell command, a word of
// one, or a script.
func Redact(text string) string {
	if harmless(text) {
		return text
	}
	for _, rule := range rules {
		text = rule().ReplaceAllString(text, "${1}"+hidden)
	}
	if exporter(text) {
		text = exporterToken().ReplaceAllString(text, "${1}"+hidden)
	}
	return text
}

// redactWords hides the secrets in a command's words: what Redact finds in
// each, and the whole value, spaces included, that an option or a variable
// with a secret's name has. A script for `sh -c` may begin with such a
// variable too, and stays readable after it.
func redactWords(words []string) []string {
	if harmless(strings.Join(words, " ")) {
		return words
	}
	shown := make([]string, len(words))
	exports, script, secretNext := false, false, false
	for i, word := range words {
		option := secretOption().MatchString(word)
		switch {
		case secretNext:
			shown[i] = hidden
			// The option before may have had no value, and this word may
			// be an option itself.
			secretNext = option || scheme().MatchString(word)
		case script:
			shown[i] = Redact(word)
		case exports && strings.HasPrefix(word, "-t"):
			shown[i] = "-t" + strings.Repeat(hidden, min(1, len(word)-2))
			secretNext = word == "-t"
		default:
			shown[i] = Redact(secretValue().ReplaceAllString(word, "${1}"+hidden))
			secretNext = option
		}
		script = shellScript().MatchString(word)
		exports = exports || exporter(word)
	}
	return shown
}
