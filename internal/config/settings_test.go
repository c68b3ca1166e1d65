package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kong-cloudtrail/relay/internal/secret"
)

var update = flag.Bool("update", false, "rewrite relay/README.md and testdata to what the code says")

// given makes the arguments of Load from lines of name=value.
func given(flags, env []string, files map[string]string) (func(string) (string, bool), func(string) string, func(string) ([]byte, error)) {
	find := func(lines []string, name string) (string, bool) {
		for _, line := range lines {
			if key, value, _ := strings.Cut(line, "="); key == name {
				return value, true
			}
		}
		return "", false
	}
	return func(name string) (string, bool) { return find(flags, name) },
		func(name string) string { value, _ := find(env, name); return value },
		func(path string) ([]byte, error) {
			if text, ok := files[path]; ok {
				return []byte(text), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
}

const everything = NeedKong | NeedLedger | NeedDestination | NeedTrigger

func load(t *testing.T, n Need, env ...string) (Settings, error) {
	t.Helper()
	flags, getenv, readFile := given(nil, env, nil)
	return Load(n, flags, getenv, readFile)
}

// TestBadSettings compares the exact words about settings that are wrong. A
// file of testdata/settings holds flags, variables and files, and what is said.
func TestBadSettings(t *testing.T) {
	paths, err := filepath.Glob("testdata/settings/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d files: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			want := -1
			for i, f := range archive.Files {
				files[f.Name] = string(f.Data)
				if f.Name == "want" {
					want = i
				}
			}
			if want < 0 {
				t.Fatal("no file named want")
			}
			n := NeedLedger
			for word := range strings.FieldsSeq(files["need"]) {
				bit, ok := map[string]Need{"kong": NeedKong, "destination": NeedDestination, "trigger": NeedTrigger}[word]
				if !ok {
					t.Fatalf("need %q", word)
				}
				n |= bit
			}
			environ := lines(files["env"])
			flags, getenv, readFile := given(lines(files["flags"]), environ, files)
			s, err := Load(n, flags, getenv, readFile)
			said := ""
			if err != nil {
				if _, ok := errors.AsType[*Error](err); !ok {
					t.Fatalf("not a settings error: %v", err)
				}
				said = err.Error() + "\n"
			}
			for _, warning := range append(s.Warnings, UnknownVariables(environ)...) {
				said += "warning: " + warning + "\n"
			}
			if *update {
				archive.Files[want].Data = []byte(said)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if said != string(archive.Files[want].Data) {
				t.Errorf("said:\n%s\nwant:\n%s", said, archive.Files[want].Data)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("a secret is repeated:\n%s", said)
			}
		})
	}
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

func TestFirstIntegrationsVariables(t *testing.T) {
	s, err := load(t, everything,
		"KONG_ADMIN_API=https://kong.internal:8444/prefix/", "KONG_SUPERADMIN=true", "KONG_ADMIN_TOKEN=hunter2",
		"REDIS_HOST=redis.internal:6380", "REDIS_DB=3", "REDIS_USERNAME=relay", "REDIS_PASSWORD=hunter2",
		"CHANNEL_ARN=arn:aws-us-gov:cloudtrail:us-gov-west-1:123456789012:channel/abc", "REGION=us-gov-west-1",
		"AWS_REGION=us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.KongToken.Reveal(t.Context())
	password, errPassword := s.RedisPassword.Reveal(t.Context())
	if token != "hunter2" || password != "hunter2" || errors.Join(err, errPassword) != nil {
		t.Errorf("secrets: %v", errors.Join(err, errPassword))
	}
	got := []any{s.KongAdminAPI, s.KongSendToken, s.RedisAddrs, s.RedisDB, s.RedisUsername, s.ChannelARN, s.AccountID, s.Region, s.Warnings}
	want := []any{
		"https://kong.internal:8444/prefix/", true, []string{"redis.internal:6380"}, 3, "relay",
		"arn:aws-us-gov:cloudtrail:us-gov-west-1:123456789012:channel/abc", "123456789012", "us-gov-west-1", []string(nil),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if text := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(text, "hunter2") {
		t.Error("settings print a secret")
	}
}

func TestFlagBeatsVariableBeatsDefault(t *testing.T) {
	for _, test := range []struct {
		flags, env []string
		want       int
	}{
		{nil, nil, 1000},
		{nil, []string{"RELAY_PAGE_SIZE="}, 1000}, // an empty variable is not set
		{nil, []string{"RELAY_PAGE_SIZE=10"}, 10},
		{[]string{"page-size=20"}, []string{"RELAY_PAGE_SIZE=10"}, 20},
		{[]string{"page-size="}, []string{"RELAY_PAGE_SIZE=10"}, 1000},
	} {
		flags, getenv, readFile := given(test.flags, test.env, nil)
		s, err := Load(NeedLedger, flags, getenv, readFile)
		if err != nil || s.PageSize != test.want {
			t.Errorf("%v %v: %d, %v", test.flags, test.env, s.PageSize, err)
		}
	}
	// A flag that says where a secret is beats each of the variables that do.
	flags, getenv, readFile := given([]string{"kong-admin-token-file=f"}, []string{"KONG_ADMIN_TOKEN=old"}, map[string]string{"f": "new\n"})
	s, err := Load(NeedLedger, flags, getenv, readFile)
	if err != nil {
		t.Fatal(err)
	}
	if token, err := s.KongToken.Reveal(t.Context()); token != "new" {
		t.Errorf("token of another place, %v", err)
	}
}

func TestValues(t *testing.T) {
	for _, test := range []struct {
		env  string
		get  func(Settings) any
		want any
	}{
		{"REDIS_HOST=a:1, b:2,", func(s Settings) any { return s.RedisAddrs }, []string{"a:1", "b:2"}},
		{"REDIS_HOST=redis", func(s Settings) any { return s.RedisAddrs }, []string{"redis"}},
		{"REDIS_HOST=", func(s Settings) any { return s.RedisAddrs }, []string{"localhost:6379"}},
		{"REDIS_HOST=[fe80::1%eth0]:7000,[redis]", func(s Settings) any { return s.RedisAddrs }, []string{"[fe80::1%eth0]:7000", "[redis]"}},
		{"KONG_ADMIN_API=https://kong:8444/a@b", func(s Settings) any { return s.KongAdminAPI }, "https://kong:8444/a@b"},
		{"RELAY_PUT_RATE=", func(s Settings) any { return s.PutRate }, 92},
		{"RELAY_LOG_STREAM=", func(s Settings) any { return s.LogStream }, "kong"},
		{"CHANNEL_ARN=arn:aws:cloudtrail:us-east-1:123456789012:channel/x", func(s Settings) any { return [3]string{s.Region, s.AccountID, s.ChannelARN} },
			[3]string{"us-east-1", "123456789012", "arn:aws:cloudtrail:us-east-1:123456789012:channel/x"}},
		{"REDIS_HOST=[::1]:7000", func(s Settings) any { return s.RedisAddrs }, []string{"[::1]:7000"}},
		{"KONG_SUPERADMIN=True", func(s Settings) any { return s.KongSendToken }, true},
		{"RELAY_LEDGER=bolt:/var/lib/relay.db", func(s Settings) any { return s.LedgerFile }, "/var/lib/relay.db"},
		{"RELAY_RECORD_TTL=86400", func(s Settings) any { return s.RecordTTL }, 24 * time.Hour},
		{"RELAY_RECORD_TTL=48h", func(s Settings) any { return s.RecordTTL }, 48 * time.Hour},
		{"RELAY_RECORD_TTL=", func(s Settings) any { return s.RecordTTL }, 30 * 24 * time.Hour},
		{"RELAY_SCHEDULE=@hourly", func(s Settings) any { return s.Schedule }, time.Hour},
		{"RELAY_SCHEDULE=90s", func(s Settings) any { return s.Schedule }, 90 * time.Second},
		{"RELAY_START_AT=2026-01-31", func(s Settings) any { return s.StartAt.Unix() }, int64(1769817600)},
		{"RELAY_START_AT=2026-01-31T02:00:00+02:00", func(s Settings) any { return s.StartAt.Unix() }, int64(1769817600)},
		{"RELAY_START_AT=1769817600", func(s Settings) any { return s.StartAt.Unix() }, int64(1769817600)},
		{"KONG_ROOT_CA=disabled", func(s Settings) any { return s.KongRootCA == nil }, true},
		{"RELAY_REDACT=config.key, token", func(s Settings) any { return s.Redact }, []string{"config.key", "token"}},
		{"RELAY_LISTEN=off", func(s Settings) any { return s.Listen }, ""},
		{"RELAY_LOG_LEVEL=debug", func(s Settings) any { return s.LogLevel.String() }, "DEBUG"},
		{"RELAY_DESTINATION=jsonl:events.jsonl", func(s Settings) any { return s.JSONLFile }, "events.jsonl"},
		{"RELAY_DESTINATION=jsonl", func(s Settings) any { return s.JSONLFile }, "-"},
	} {
		s, err := load(t, NeedLedger, test.env)
		if err != nil {
			t.Errorf("%s: %v", test.env, err)
		} else if got := test.get(s); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.env, got, test.want)
		}
	}
}

// Blanks and line ends around a value are not part of it, whatever the setting: files
// of variables that were written on Windows leave a carriage return.
func TestBlanksAroundValues(t *testing.T) {
	t.Parallel()
	plain := []string{
		"KONG_ADMIN_API=https://kong:8444", "KONG_SUPERADMIN=true", "RELAY_KONG_TLS_SERVER_NAME=kong.internal", "RELAY_SOURCE=east",
		"REDIS_HOST=redis:6379", "REDIS_DB=3", "REDIS_USERNAME=relay", "RELAY_REDIS_SENTINEL_MASTER=m", "RELAY_REDIS_PREFIX=p",
		"RELAY_DESTINATION=cloudwatch", "REGION=eu-central-1", "RELAY_LOG_GROUP=/kong/audit", "RELAY_LOG_STREAM=kong",
		"RELAY_SCHEDULE=@hourly", "RELAY_LISTEN=127.0.0.1:8080", "RELAY_OPS_LISTEN=off", "RELAY_LOG_LEVEL=debug", "RELAY_LOG_FORMAT=json",
		"RELAY_START_AT=2026-01-31", "RELAY_REDACT=a.b", "RELAY_RECORD_TTL=86400", "RELAY_RETRY_FOR=90s", "KONG_ROOT_CA=disabled",
		"KONG_ADMIN_TOKEN=token", "REDIS_PASSWORD_FILE=f",
	}
	var padded []string
	for _, kv := range plain {
		name, value, _ := strings.Cut(kv, "=")
		padded = append(padded, name+"=\t "+value+" \r\n")
	}
	loaded := func(env []string) Settings {
		flags, getenv, readFile := given(nil, env, map[string]string{"f": "secret\r\n"})
		s, err := Load(NeedKong|NeedLedger|NeedDestination, flags, getenv, readFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []secret.Secret{s.KongToken, s.RedisPassword} {
			if text, err := secret.Reveal(t.Context()); err != nil || text != strings.TrimSpace(text) || text == "" {
				t.Errorf("secret has blanks: %v", err)
			}
		}
		s.KongToken, s.RedisPassword, s.aws = secret.Secret{}, secret.Secret{}, nil
		return s
	}
	if want, got := loaded(plain), loaded(padded); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if s, err := load(t, NeedLedger, "RELAY_LEDGER= \r"); err != nil || s.LedgerFile != "" {
		t.Errorf("a blank value counts as set: %v", err)
	}
	if s, err := load(t, NeedDestination, "RELAY_LOG_GROUP=/kong/audit", "AWS_REGION= eu-central-1\n"); err != nil || s.Region != "eu-central-1" {
		t.Errorf("AWS_REGION gives %q: %v", s.Region, err)
	}
	if _, err := load(t, NeedKong, "KONG_ADMIN_API=https://kong:8444", "KONG_SUPERADMIN=true", "KONG_ADMIN_TOKEN= \n"); err == nil || !strings.Contains(err.Error(), "no token to send") {
		t.Errorf("a blank token counts as set: %v", err)
	}
}

// TestTable holds for every row what the rest takes for granted.
func TestTable(t *testing.T) {
	var names, variables, groups []string
	for _, row := range new(loader).table() {
		if (row.secret != nil) == (row.set != nil) {
			t.Errorf("%s: one of set and secret", row.name)
		}
		if row.help == "" || strings.HasSuffix(row.help, ".") {
			t.Errorf("%s: help %q", row.name, row.help)
		}
		if len(groups) == 0 || groups[len(groups)-1] != row.group {
			groups = append(groups, row.group)
		}
		if row.secret != nil {
			variables = append(variables, row.variable())
		}
		for _, f := range row.flags() {
			names, variables = append(names, f.Name), append(variables, f.Env)
			if f.IsSwitch() && f.Default != "false" {
				t.Errorf("%s: a switch is off by default", f.Name)
			}
			if strings.HasPrefix(f.Env, "RELAY_") && f.Env != "RELAY_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) {
				t.Errorf("%s and %s are not the same name", f.Name, f.Env)
			}
		}
	}
	for _, list := range [][]string{names, variables, groups} {
		slices.Sort(list)
		if len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Errorf("something is there twice: %v", list)
		}
	}
	// No default may be wrong, and none may warn.
	if s, err := load(t, NeedLedger); err != nil || len(s.Warnings) > 0 {
		t.Errorf("defaults: %v, %v", err, s.Warnings)
	}
}

func TestReadmeSettings(t *testing.T) {
	const path = "../../relay/README.md"
	const again = "go test ./internal/config -run TestReadmeSettings -update"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), readmeBegin+"\n")
	old, after, ok2 := strings.Cut(rest, readmeEnd)
	if !ok || !ok2 {
		t.Fatalf("relay/README.md has no lines %s and %s", readmeBegin, readmeEnd)
	}
	table := settingsMarkdown()
	if old == table {
		return
	}
	if !*update {
		t.Fatalf("relay/README.md's list of settings is not what the code says; run: %s", again)
	}
	if err := os.WriteFile(path, []byte(before+readmeBegin+"\n"+table+readmeEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownVariables(t *testing.T) {
	got := UnknownVariables([]string{
		"PATH=/bin", "KONG_DATABASE=off", "RELAY_LISTEN=x", "RELAY_TRIGGER_SECRET=hunter2", "RELAY_TRIGGER_SECRET_FILE=x",
		"RELAY_PORT=tcp://10.0.0.1:80", "RELAY_SERVICE_HOST=10.0.0.1",
		"RELAY_PAGESIZE=hunter2", "RELAY_KONG_ADMIN_API=x", "RELAY_SOMETHING_ELSE=x",
	})
	want := []string{
		"RELAY_KONG_ADMIN_API is not a setting and has no effect; did you mean KONG_ADMIN_API?",
		"RELAY_PAGESIZE is not a setting and has no effect; did you mean RELAY_PAGE_SIZE?",
		"RELAY_SOMETHING_ELSE is not a setting and has no effect",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// FuzzSettings feeds any text to every setting: an answer, never a panic.
func FuzzSettings(f *testing.F) {
	f.Add("")
	f.Add("http://user:hunter2@[::1")
	f.Add("arn:aws:cloudtrail:::")
	f.Add(`-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----`)
	f.Add("1,,2:3,[::]:99999")
	f.Fuzz(func(t *testing.T, text string) {
		var env []string
		for _, row := range new(loader).table() {
			env = append(env, row.variable()+"="+text)
		}
		flags, getenv, readFile := given(nil, env, nil)
		if s, err := Load(everything, flags, getenv, readFile); err == nil && s.KongAdminAPI == "" {
			t.Errorf("%q is good for everything", text)
		}
	})
}

func BenchmarkLoadSettings(b *testing.B) {
	flags, getenv, readFile := given(nil, []string{"KONG_ADMIN_API=http://localhost:8001"}, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Load(NeedKong, flags, getenv, readFile); err != nil {
			b.Fatal(err)
		}
	}
}
