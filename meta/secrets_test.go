package meta

import (
	"strings"
	"testing"
)

// In scripts, and in the words of other programs. Each is a word, or a script
// for sh -c, that Redact has to show as given; "=" stands for "as it is".
var shapesOfText = []struct{ text, want string }{
	// Options.
	{`run --token S3CRET on`, `run --token *** on`},
	{`run --token=S3CRET on`, `run --token=*** on`},
	{`run -token S3CRET on`, `run -token *** on`},
	{`run -password=S3CRET on`, `run -password=*** on`},
	{`run --pass S3CRET on`, `run --pass *** on`},
	{`run --passphrase S3CRET on`, `run --passphrase *** on`},
	{`run --auth S3CRET on`, `run --auth *** on`},
	{`run --basic-auth S3CRET on`, `run --basic-auth *** on`},
	{`run --api-key S3CRET on`, `run --api-key *** on`},
	{`run --apikey=S3CRET on`, `run --apikey=*** on`},
	{`run --credential S3CRET on`, `run --credential *** on`},
	{`run --oauth2-bearer S3CRET on`, `run --oauth2-bearer *** on`},
	{`run --client-secret 'S3CRET S3CRET' on`, `run --client-secret *** on`},
	{`run --token "a \"S3CRET S3CRET" on`, `run --token ***`},
	{`run --token $'a\'S3CRET S3CRET' on`, `run --token ***`},
	{`run --token a\ S3CRET on`, `run --token ***`},
	{`run --token "$(cat "a b" S3CRET)" on`, `run --token ***`},
	{`run --password "*** S3CRET" on`, `run --password *** on`},
	{`keytool -storepass S3CRET -v`, `keytool -storepass *** -v`},
	{`openssl rsa -passin pass:S3CRET -in f`, `openssl rsa -passin pass:***`},
	{`cmd /token:S3CRET /v`, `cmd /token:***`},
	{`java -Ddb.password=S3CRET -jar x`, `java -Ddb.password=*** -jar x`},
	{`kubectl create secret generic x --from-literal=password=S3CRET`, `kubectl create secret generic x --from-literal=password=***`},
	{`docker run -e TOKEN=S3CRET image`, `docker run -e TOKEN=*** image`},
	{`docker build --build-arg API_KEY=S3CRET .`, `docker build --build-arg API_KEY=*** .`},
	{`helm install --set auth.token=S3CRET x`, `helm install --set auth.token=*** x`},
	// Variables.
	{`DISCORD_TOKEN=S3CRET run`, `DISCORD_TOKEN=*** run`},
	{`export DB_PASS=S3CRET; run`, `export DB_PASS=***; run`},
	{`A_TOKEN+=S3CRET TOKEN[0]=S3CRET run`, `A_TOKEN+=*** TOKEN[0]=*** run`},
	{`TOKENS=(a S3CRET) run`, `TOKENS=***`},
	{"TOKEN=`echo S3CRET` ./x", `TOKEN=***`},
	{`TOKEN=$(echo $(id) S3CRET) ./x`, `TOKEN=***`},
	{`TOKEN="$(echo "a S3CRET")" ./x`, `TOKEN=***`},
	{`TOKEN=${X:-a S3CRET} ./x`, `TOKEN=***`},
	{`run "${TOKEN:-a S3CRET}" on`, `run "${TOKEN:***`},
	{`TOKEN='a b'S3CRET"c d" run`, `TOKEN=*** run`},
	{`env "TOKEN=my S3CRET" run`, `env "TOKEN=***" run`},
	{`env -S 'TOKEN=S3CRET run'`, `env -S 'TOKEN=***'`},
	{`read -r TOKEN <<< S3CRET; run`, `read -r TOKEN <<< ***`},
	{`set -x TOKEN S3CRET; run`, `set -x TOKEN ***; run`},
	{`set -gx API_KEY "S3CRET S3CRET"; run`, `set -gx API_KEY ***; run`},
	{`setenv TOKEN S3CRET`, `setenv TOKEN ***`},
	{`export TOKEN S3CRET`, `export TOKEN ***`},
	{`$env:TOKEN = 'S3CRET'; run`, `$env:TOKEN = ***`},
	{`git config user.password S3CRET`, `git config user.password ***`},
	{`config set discord.token S3CRET`, `config set discord.token ***`},
	{`aws configure set aws_secret_access_key S3CRET`, `aws configure set aws_secret_access_key ***`},
	{`ALTER USER x WITH PASSWORD 'S3CRET S3CRET'`, `ALTER USER x WITH PASSWORD ***`},
	{`jq --arg token S3CRET .`, `jq --arg token *** .`},
	{`gh secret set TOKEN --body S3CRET`, `gh secret set TOKEN --body ***`},
	{`machine h login u password S3CRET`, `machine h login u password ***`},
	// Code and configuration.
	{`os.environ['TOKEN'] = 'S3CRET'`, `os.environ['TOKEN'] = ***`},
	{`setenv("TOKEN", "S3CRET S3CRET")`, `setenv("TOKEN", ***)`},
	{`{'token' => 'S3CRET'}`, `{'token' => ***`},
	{"token: S3CRET S3CRET\nnext: 1", "token: ***\nnext: 1"},
	{"password = S3CRET S3CRET\nnext = 1", "password = ***\nnext = 1"},
	{"- name: TOKEN\n  value: S3CRET\n", `- name: TOKEN
  value:***`},
	// JSON.
	{`{"token":"S3CRET","n":1}`, `{"token":***`},
	{`{"tokens":["a","S3CRET"],"n":1}`, `{"tokens":***`},
	{`{"token":{"value":"S3CRET"}}`, `{"token":***`},
	{`{"token": "a\"S3CRET, S3CRET"}`, `{"token": ***`},
	{`[{"name":"token","value":"S3CRET"}]`, `[{"name":"token","value":***`},
	{`[{"name":"token","type":"x","value":"S3CRET"}]`, `[{"name":"token","type":"x","value":***`},
	{`"{\"token\": \"S3CRET S3CRET\", \"n\": 1}"`, `"{\"token\": ***`},
	{`{\\\"token\\\":\\\"S3CRET, S3CRET\\\",\\\"n\\\":1}`, `{\\\"token\\\":***`},
	{`{"password":12345,"n":1}`, `{"password":***`},
	{`%7B%22token%22%3A%22S3CRET%22%7D`, `%7B%22token%22%3A***`},
	// XML.
	{`<token>S3CRET</token>`, `<token>***`},
	{`<a:Password type="x">S3CRET</a:Password>`, `<a:Password type="x">***`},
	{`<tokens><t>S3CRET</t><t>S3CRET</t></tokens>`, `<tokens>***`},
	{`<add key="token" value="S3CRET"/>`, `<add key="token" value=***`},
	{`<x token="S3CRET S3CRET" n="1"/>`, `<x token=*** n="1"/>`},
	{`<string name="api_key">S3CRET</string>`, `<string name="api_key">***`},
	// Headers.
	{`curl -H "Authorization: Bot S3CRET" u`, `curl -H "Authorization: ***" u`},
	{`curl -H 'Cookie: a="b"; c=S3CRET' u`, `curl -H 'Cookie: ***' u`},
	{`curl -H Cookie:a=S3CRET u`, `curl -H Cookie:***`},
	{`curl --header='X-Api-Key: S3CRET' u`, `curl --header='X-Api-Key: ***' u`},
	{`curl -H "Authorization: Basic S3CRETS3CRET==" u`, `curl -H "Authorization: ***" u`},
	{`run Bearer S3CRET on`, `run Bearer *** on`},
	// Addresses.
	{`curl https://x/?token=S3CRET&n=1`, `curl https://x/?token=***&n=1`},
	{`curl https://x/?a=1&access_token=S3CRET#x`, `curl https://x/?a=1&access_token=***`},
	{`curl --data-urlencode token=S3CRET u`, `curl --data-urlencode token=*** u`},
	{`git clone https://user:S3CRET@host/x`, `git clone https://user:***@host/x`},
	{`git clone https://user:p@S3CRET@host/x@y`, `git clone https://user:***@host/x@y`},
	{`git clone https://user:p/S3CRET@host/`, `git clone https://user:***@host/`},
	{`git clone https://S3CRET@github.com/x.git`, `git clone https://***@github.com/x.git`},
	{`redis-cli -u redis://:S3CRET@host:6379/0`, `redis-cli -u redis://:***@host:6379/0`},
	{`x https%3A%2F%2Fuser%3AS3CRET%40host%2F`, `x https%3A%2F%2Fuser%3A***%40host%2F`},
	{`{"u":"https:\/\/user:S3CRET@host\/"}`, `{"u":"https:\/\/user:***@host\/"}`},
	{`x https://discord.com/api/webhooks/123456789012345678/S3CRET_-x?wait=1`, `x https://discord.com/api/webhooks/123456789012345678/***`},
	{`x https%3A%2F%2Fdiscord.com%2Fapi%2Fwebhooks%2F1234%2FS3CRET`, `x https%3A%2F%2Fdiscord.com%2Fapi%2Fwebhooks%2F1234%2F***`},
	// Options of one program only.
	{`./DiscordChatExporter.Cli export -t S3CRET -c 1`, `./DiscordChatExporter.Cli export -t *** -c 1`},
	{`DiscordChatExporter.Cli export -tS3CRET -t=S3CRET -t "S3CRET S3CRET" -c 1`, `DiscordChatExporter.Cli export -t*** -t=*** -t *** -c 1`},
	{`DiscordChatExporter.Cli export -o "a;b" 2>&1 -t S3CRET; tar -t x`, `DiscordChatExporter.Cli export -o "a;b" 2>&1 -t ***; tar -t x`},
	{"DiscordChatExporter.Cli export \\\n -t S3CRET", "DiscordChatExporter.Cli export \\\n -t ***"},
	{`["DiscordChatExporter.Cli","export","-t","S3CRET"]`, `["DiscordChatExporter.Cli","export","-t",***`},
	{`curl -u user:S3CRET https://x`, `curl -u *** https://x`},
	{`curl -sSu "user:S3CRET S3CRET" https://x`, `curl -sSu *** https://x`},
	{`curl -uuser:S3CRET --user=user:S3CRET --proxy-user user:S3CRET https://x`, `curl -u*** --user=*** --proxy-user *** https://x`},
	{`curl -u S3CRET: https://x`, `curl -u *** https://x`},
	{`curl -b session=S3CRET https://x`, `curl -b *** https://x`},
	// Shapes.
	{`x ghp_S3CRET6C7e42F292c6912E7710c838347Ae178`, `x ***`},
	{`x github_pat_11ABCDEFG0S3CRETabcdefgh_abc`, `x ***`},
	{`x AKIAS3CRETABCDEFGHIJ`, `x ***`},
	{`x xoxb-123456789012-S3CRET`, `x ***`},
	{`x 'ghp_''S3CRET6C7e42F292c6912E7710c838347Ae178'`, `x ***`},
	{`x 'MTE5ODYyMjQ4MzQ3MTkyNTI0OA.Gv8''abc.q1XyZaBcDeFgHiJkLmNoPqRsTuVwS3CRET'`, `x ***`},
	{"x '-----BEGIN RSA PRIVATE KEY-----\nS3CRET\n-----END RSA PRIVATE KEY-----'", `x '-----BEGIN RSA PRIVATE KEY***'`},
	{"x '-----BEGIN PGP PRIVATE KEY BLOCK-----\nS3CRET\n", `x '-----BEGIN PGP PRIVATE KEY***`},
	// No secrets.
	{`curl http://localhost:8080`, "="},
	{`curl http://localhost:8080/@user?m=a@b`, "="},
	{`curl http://[::1]:8080/a@b`, "="},
	{`nc -l 8080`, "="},
	{`run --no-cookies https://x/y on`, "="},
	{`run --max-tokens 4096 --max_new_tokens=5 {"maxTokens":4096}`, "="},
	{`run --token-count 5 --tokens-per-minute 7 --tokenizer gpt2`, "="},
	{`run --password-file /run/x --cookie-jar jar.txt`, "="},
	{`TOKEN_FILE=/run/secrets/x run`, "="},
	{`tar -t archive.tar`, "="},
	{`ssh -t host DiscordChatExporter.Cli`, "="},
	{`DiscordChatExporter.Cli export -c 1; tar -t x && ssh -t host`, "="},
	{`cd DiscordChatExporter && tar -t x`, "="},
	{`sudo -u user:group ls; sort -u a:b`, "="},
	{`curl -u user https://x/a:b`, "="},
	{`curl -b cookies.txt https://x`, "="},
	{`scrape --target secret_server --verbose`, "="},
	{`grep -c token log; grep -i password 'my log'`, "="},
	{`run --pass-through yes --bypass yes --compass north`, "="},
	{`git log --author me --authority x; authorize user; bypass=1 compass: 2`, "="},
	{`cat /home/token/secrets/password.txt next`, "="},
	{`[{"name":"author","value":"a"},{"name":"pass-through","value":"b"}]`, "="},
	{"authentication:\n  token: S3CRET", "authentication:\n  token: ***"},
	{`docker run -v /run/secrets:/run/secrets:ro image`, "="},
	{`git clone git@github.com:org/repo`, "="},
	{`git clone ssh://git@github.com/org/repo https://git@github.com/org/repo`, `git clone ssh://git@github.com/org/repo https://***@github.com/org/repo`},
	{`ssh user@host; mail a@b`, "="},
	{`passwd root; pass show x; token`, "="},
	{`run --token`, "="},
	{`run basic usage; run basic tutorial; the bearer`, "="},
	{`./keyboard --key-map us; monkey=1`, "="},
	{`sort <secret.txt >out`, "="},
	{`x webhooks/list xoxo gh_pages AKIA`, "="},
	{`run v1.2.3 2026-06-04T06:39:46Z a.b.c 123456789012345678`, "="},
}

// What Redact hides of a script, Summary hides of sh -c with it, and what is
// shown then stays as it is when it is read.
func TestShapesOfSecrets(t *testing.T) {
	for _, c := range shapesOfText {
		want := c.want
		if want == "=" {
			want = c.text
		}
		if got := Redact(c.text); got != want {
			t.Errorf("Redact(%q)\n got %q\nwant %q", c.text, got, want)
		}
		for _, words := range [][]string{{"sh", "-c", c.text}, {"run", c.text, "on"}} {
			got := Summary(words)
			if strings.Contains(got, "S3CRET") {
				t.Errorf("Summary(%q)\n got %s", words, got)
			}
			if again := Redact(got); words[0] == "sh" && again != got {
				t.Errorf("Summary(%q)\n is %s\nread %s", words, got, again)
			}
		}
		if got := Summary([]string{"sh", "-c", c.text}); got != "sh -c "+quote(want) {
			t.Errorf("Summary of sh -c %q\n got %s\nwant %s", c.text, got, want)
		}
	}
}

// Each form hides what its example has.
func TestFormsHideTheirExamples(t *testing.T) {
	for _, f := range forms {
		if !strings.Contains(Redact(f.example), hidden) {
			t.Errorf("%q is shown as %q", f.example, Redact(f.example))
		}
	}
}

func BenchmarkSummary(b *testing.B) {
	words := []string{"./scripts/run-discord-scrape-host.sh", "scrape", "--target", "KotOR"}
	for b.Loop() {
		Summary(words)
	}
}

// Hiding twice changes nothing.
func FuzzRedactIsStable(f *testing.F) {
	for _, c := range shapesOfText {
		f.Add(c.text)
	}
	f.Add("<\u0130token>\u0130\u0130x") // longer in lower case
	f.Add(`"'TOKEN='="`)
	f.Fuzz(func(t *testing.T, text string) {
		once := Redact(text)
		if twice := Redact(once); twice != once {
			t.Errorf("%q\n is shown as %q\n and read as %q", text, once, twice)
		}
	})
}

// A secret in one of the known forms is hidden, whatever stands around it.
func FuzzPlantedSecret(f *testing.F) {
	plants := []string{"--token %", "--token=%", "TOKEN=%", "DB_PASSWORD='%'", "Authorization: Bot %", `{"token":"%"}`, `<token>%</token>`,
		"https://user:%@host/", "/webhooks/1234/%", "ghp_%ABCDEFGHIJKLMNOPQRST", "curl -u user:%", "DiscordChatExporter -t %", "export TOKEN %"}
	for i := range plants {
		f.Add("run ", uint8(i), " on 'a b'")
		f.Add("sh -c 'x \"", uint8(i), "\"'")
		f.Add(`{"a":"`, uint8(i), "\"}\n")
	}
	f.Fuzz(func(t *testing.T, before string, which uint8, after string) {
		const secret = "S3CRETplantedS3CRET"
		plant := strings.Replace(plants[int(which)%len(plants)], "%", secret, 1)
		text := before + " " + plant + " " + after
		if got := Redact(text); strings.Contains(got, secret) {
			t.Errorf("%q is shown as %q", text, got)
		}
		if got := Summary([]string{"sh", "-c", text}); strings.Contains(got, secret) {
			t.Errorf("the script %q is shown as %s", text, got)
		}
	})
}
