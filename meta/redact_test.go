package meta

import (
	"strings"
	"testing"
)

// A secret is written S3CRET here, and has to be gone; everything else is
// given as it has to be seen.
func TestSecretsAreHidden(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"run", "--token", "S3CRET", "scrape"}, `run --token *** scrape`},
		{[]string{"run", "--token=S3CRET", "scrape"}, `run --token=*** scrape`},
		{[]string{"run", "--Token=S3CRET with S3CRET", "x"}, `run --Token=*** x`},
		{[]string{"run", "-token", "S3CRET with S3CRET", "x"}, `run -token *** x`},
		{[]string{"run", "--token", "--S3CRET", "--token", "S3CRET"}, `run --token *** --token ***`},
		{[]string{"run", "--bot-token-2", "S3CRET"}, `run --bot-token-2 ***`},
		{[]string{"env", "DISCORD_TOKEN=S3CRET", "A=1", "run"}, `env DISCORD_TOKEN=*** A=1 run`},
		{[]string{"env", "MY_PASSWORD=S3CRET with S3CRET", "DB_PASSWD=S3CRET", "CLIENT_SECRET=S3CRET", "API_KEY=S3CRET", "apikey=S3CRET", "run"},
			`env MY_PASSWORD=*** DB_PASSWD=*** CLIENT_SECRET=*** API_KEY=*** apikey=*** run`},
		{[]string{"curl", "-H", "Authorization: Bot S3CRET", "https://x/y"}, `curl -H 'Authorization: ***' https://x/y`},
		{[]string{"curl", "-H", "authorization:S3CRET", "-H", "Accept: text/html"}, `curl -H authorization:*** -H 'Accept: text/html'`},
		{[]string{"curl", "-H", "Cookie: a=S3CRET; b=S3CRET", "--cookie", "S3CRET", "u"}, `curl -H 'Cookie: ***' --cookie *** u`},
		{[]string{"curl", "-H", "X-Api-Key: S3CRET", "u"}, `curl -H 'X-Api-Key: ***' u`},
		{[]string{"curl", "-d", `{"token":"S3CRET","n":1}`}, `curl -d '{"token":***'`},
		{[]string{"curl", "-d", `{'token': 'S3CRET', 'n': 1}`}, `curl -d '{'\''token'\'': ***'`},
		{[]string{"curl", "https://x/?token=S3CRET&n=1"}, `curl 'https://x/?token=***&n=1'`},
		{[]string{"http", "GET", "u", "Authorization:", "S3CRET"}, `http GET u Authorization: ***`},
		{[]string{"sh", "-c", `curl -H "Authorization: Bearer S3CRET S3CRET" u && run --token 'S3CRET S3CRET'; A_TOKEN="S3CRET S3CRET" run now`},
			`sh -c 'curl -H "Authorization: ***" u && run --token ***; A_TOKEN=*** run now'`},
		{[]string{"bash", "-lc", "TOKEN=S3CRET\nrun now\n"}, `bash -lc $'TOKEN=***\nrun now\n'`},
		{[]string{"sh", "-c", `curl -d "{\"token\": \"S3CRET S3CRET\", \"n\": 1}" u`}, `sh -c 'curl -d "{\"token\": ***'`},
		{[]string{"dotnet", "DiscordChatExporter.Cli.dll", "export", "-t", "S3CRET", "-c", "123"}, `dotnet DiscordChatExporter.Cli.dll export -t *** -c 123`},
		{[]string{"docker", "run", "tyrrrz/discordchatexporter:stable", "export", "-t", "S3CRET"}, `docker run tyrrrz/discordchatexporter:stable export -t ***`},
		{[]string{"sh", "-c", `./DiscordChatExporter.Cli export -t "S3CRET" -c 1`}, `sh -c './DiscordChatExporter.Cli export -t *** -c 1'`},
		{[]string{"curl", "https://discord.com/api/webhooks/123456789012345678/S3CRET-_"}, `curl https://discord.com/api/webhooks/123456789012345678/***`},
		{[]string{"run", "--no-cookies", "--password", "S3CRET", "x"}, `run --no-cookies --password *** x`},
		{[]string{"run", "--password-stdin", "--token", "S3CRET"}, `run --password-stdin --token ***`},
		{[]string{"curl", "-H", `Cookie: a="b"; session=S3CRET`, "u"}, `curl -H 'Cookie: ***' u`},
		{[]string{"curl", "-H", `Authorization: Digest username="u", response="S3CRET"`}, `curl -H 'Authorization: ***'`},
		{[]string{"http", "Authorization:", "Bot", "S3CRET", "u"}, `http Authorization: *** *** u`},
		{[]string{"sh", "-c", "run --token \\\n S3CRET on"}, `sh -c $'run --token \\\n *** on'`},
		{[]string{"sh", "-c", `run "--token" "S3CRET" on`}, `sh -c 'run "--token" *** on'`},
		{[]string{"run", `["--token","S3CRET"]`}, `run '["--token",***'`},
		{[]string{"sh", "-c", `run --password ab,S3CRET}S3CRET on`}, `sh -c 'run --password *** on'`},
		{[]string{"sh", "-c", `env "DISCORD_TOKEN=my S3CRET" run`}, `sh -c 'env "DISCORD_TOKEN=***" run'`},
		{[]string{"sh", "-c", `curl -H "Authorization: Digest a=\"b\", c=\"S3CRET\"" u`}, `sh -c 'curl -H "Authorization: ***'`},
		{[]string{"sh", "-c", `run --token=$(echo S3CRET) on`}, `sh -c 'run --token=***'`},
		{[]string{"sh", "-c", "A_TOKEN+=S3CRET TOKEN[0]=S3CRET run --api.key S3CRET"}, `sh -c 'A_TOKEN+=*** TOKEN[0]=*** run --api.key ***'`},
		{[]string{"./DiscordChatExporter.Cli", "export", "-tS3CRET", "-t=S3CRET", "-t", "S3CRET", "-c", "1"}, `./DiscordChatExporter.Cli export -t*** -t=*** -t *** -c 1`},
		{[]string{"sh", "-c", `./DiscordChatExporter.Cli export "-t" "S3CRET" -c 1`}, `sh -c './DiscordChatExporter.Cli export "-t" *** -c 1'`},
		{[]string{"git", "clone", "https://user:S3CRET@host/x"}, `git clone https://user:***@host/x`},
		// Not secrets.
		{[]string{"tar", "-t", "archive.tar"}, `tar -t archive.tar`},
		{[]string{"scrape", "--target", "secret_server", "--token"}, `scrape --target secret_server --token`},
		{[]string{"grep", "-c", "token", "log"}, `grep -c token log`},
		{[]string{"run", "v1.2.3", "2026-06-04T06:39:46Z", "a.b.c", "123456789012345678"}, `run v1.2.3 2026-06-04T06:39:46Z a.b.c 123456789012345678`},
	} {
		got := Summary(c.words)
		if got != c.want {
			t.Errorf("Summary(%q)\n got %s\nwant %s", c.words, got, c.want)
		}
		if strings.Contains(Redact(got), "S3CRET") || strings.Contains(got, "S3CRET") {
			t.Errorf("a secret is left in %s", got)
		}
	}
}

// A script that hides nothing may have written the record; where its words are
// not quoted, a value is taken to be one word.
func TestSecretsInForeignRecords(t *testing.T) {
	for text, want := range map[string]string{
		"run --token S3CRET on":                            "run --token *** on",
		"password: |\n  S3CRET\nnext: 1":                   "password: |\n  ***\nnext: 1",
		"run --token=S3CRET on":                            "run --token=*** on",
		"env DISCORD_TOKEN=S3CRET run on":                  "env DISCORD_TOKEN=*** run on",
		"DiscordChatExporter.Cli export -t S3CRET -c 1":    "DiscordChatExporter.Cli export -t *** -c 1",
		"curl -H 'Authorization: Bot S3CRET' u":            "curl -H 'Authorization: ***' u",
		"curl -H Authorization: Bot S3CRET":                "curl -H Authorization: ***",
		`run --token "S3CRET S3CRET`:                       "run --token ***",
		"tar -t x; run --target secret_server --verbose y": "tar -t x; run --target secret_server --verbose y",
	} {
		if got := Redact(text); got != want {
			t.Errorf("Redact(%q)\n got %s\nwant %s", text, got, want)
		}
	}
}

// What is called harmless has none of the forms.
func FuzzHarmless(f *testing.F) {
	for _, c := range forms {
		f.Add(c.example)
	}
	for _, seed := range []string{"a://b:c@d", aToken, "API KEY=x", "\u017fecret=x", "to\u212aen=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		plain, _ := unquote(text)
		for _, form := range forms {
			if harmless(plain) && form.pattern().MatchString(plain) {
				t.Errorf("%q is called harmless, and has the form of %s", text, form.example)
			}
		}
	})
}

// The shapes are real, the tokens are not.
func TestDiscordTokensAreHidden(t *testing.T) {
	for _, token := range []string{
		"MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcDE.abcdefghijklmnopqrstuvwxyz0123456789AB",
		"MTIzNDU2Nzg5MDEyMzQ1Njc4OQ.Xx-_Yy.ABCDEFGHIJKLMNOPQRSTUVWXYZ0",
		"NzkyNzE1NDU0MTk2MDg4ODQy.X-hvzA.Ovy4MCQywSkoMRRclStW4xAYK7I",
		"mfa.ABCDEFGHIJKLMNOPQRSTUVWXYZ-_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUV",
	} {
		for _, form := range []string{"%", "x %", "--foo=%", "'%'", "https://x/%/y", "a:%", "Bot %"} {
			got := Summary([]string{"run", strings.Replace(form, "%", token, 1), "on"})
			if strings.Contains(got, token[:12]) || strings.Contains(got, token[len(token)-12:]) || !strings.HasSuffix(got, " on") {
				t.Errorf("%q: %s", form, got)
			}
		}
	}
}

// What somebody else may write into a record must not take long: these are the
// texts that take longest, each as long as what is read of a command. A benchmark,
// as a limit of time fails on a machine that is busy, or beside the race detector.
func BenchmarkHostileTexts(b *testing.B) {
	for _, part := range []string{"token=", `token="`, "token:", "--token ", "token=a ", "://a:b/", "://a:b@", "https://a@", "<token a=", "<token>",
		"discordchatexporter -t x ", "curl -u a: ", "name:token value:", "set token ", "set -x ", "ghp_", "mfa.", "a.", aToken + " ", "%25", "[token,"} {
		text := "token " + strings.Repeat(part, mostRead/len(part)) + " x@"
		b.Run(part, func(b *testing.B) {
			for b.Loop() {
				Redact(text)
			}
		})
	}
}
