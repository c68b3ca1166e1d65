package main

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// demoServices starts the demo as a process and returns where its Kong and its
// CloudTrail Lake are.
func demoServices(t *testing.T) (kong, logs string) {
	t.Helper()
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "demo", "--no-plugin", "--every", "1h")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); kong == "" || logs == ""; {
		if !lines.Scan() {
			t.Fatalf("the demo ended: %v", lines.Err())
		}
		if address, ok := strings.CutPrefix(lines.Text(), "Kong's Admin API (emulated)"); ok {
			kong = strings.Fields(address)[0]
		}
		if address, ok := strings.CutPrefix(lines.Text(), "CloudWatch Logs (emulated)"); ok {
			logs = strings.Fields(address)[0]
		}
	}
	return kong, logs
}

// process runs the built relay with nothing but some variables.
func process(t *testing.T, env []string, args ...string) (out string, code int) {
	t.Helper()
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = env
	text, _ := cmd.CombinedOutput()
	return string(text), cmd.ProcessState.ExitCode()
}

// readEnv returns the variables of a file.
func readEnv(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			env = append(env, line)
		}
	}
	return env
}

// TestInit makes an installation for the demo's services, which check then finds right.
func TestInit(t *testing.T) {
	t.Parallel()
	kong, logs := demoServices(t)
	dir := filepath.Join(t.TempDir(), "files")
	aws := []string{
		"AWS_ACCESS_KEY_ID=" + cloudwatchtest.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + cloudwatchtest.SecretAccessKey,
		"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=" + logs, "AWS_EC2_METADATA_DISABLED=true",
	}
	args := []string{
		"init", "--dir", dir, "--kong-admin-api", kong, "--log-group", cloudwatchtest.Group, "--region", cloudwatchtest.Region,
		"--ledger", "bolt:" + filepath.Join(t.TempDir(), "ledger.db"), "--relay-url", "http://127.0.0.1:8080/",
	}
	out, code := process(t, nil, args...)
	if code != 0 {
		t.Fatalf("init ended with %d: %s", code, out)
	}
	for name, mode := range map[string]os.FileMode{"relay.env": 0o600, "kong.env": 0o600, "kong.yml": 0o644, "kong-user.sh": 0o644, "iam-policy.json": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode || !strings.Contains(out, name) {
			t.Errorf("%s: %v, %v; said:\n%s", name, info, err, out)
		}
	}
	env := readEnv(t, filepath.Join(dir, "relay.env"))
	if said, code := process(t, append(aws, env...), "check"); code != 0 || strings.Contains(said, "FAILED") {
		t.Errorf("check ended with %d: %s", code, said)
	}
	secret := strings.TrimPrefix(readEnv(t, filepath.Join(dir, "kong.env"))[0], "CLOUDTRAIL_RELAY_SECRET=")
	if _, err := trigger.NewClient(trigger.ClientOptions{URL: "http://127.0.0.1:8080", Secret: secret}); err != nil {
		t.Errorf("the plugin's secret: %v", err)
	}
	if !strings.Contains(strings.Join(env, "\n"), "RELAY_TRIGGER_SECRET="+secret) {
		t.Error("relay and Kong have different secrets")
	}

	before := readEnv(t, filepath.Join(dir, "relay.env"))
	if err := os.Remove(filepath.Join(dir, "kong.yml")); err != nil {
		t.Fatal(err)
	}
	if out, code = process(t, nil, args...); code != 1 || !strings.Contains(out, "nothing is overwritten") {
		t.Errorf("a second init ended with %d: %s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "kong.yml")); err == nil {
		t.Error("a file was written although another one was there")
	}
	if after := readEnv(t, filepath.Join(dir, "relay.env")); strings.Join(after, "") != strings.Join(before, "") {
		t.Error("relay.env was overwritten")
	}
}

// TestInitUser runs the commands that make the RBAC user.
func TestInitUser(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		asked []string
		token string
	)
	kong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Kong-Admin-Token") != "of a super admin" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		token += r.FormValue("user_token")
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.FormValue("name")+r.FormValue("endpoint")+r.FormValue("actions")+r.FormValue("roles"))
	}))
	defer kong.Close()
	dir := t.TempDir()
	out, code := process(t, nil, "init", "--dir", dir, "--kong-admin-api", kong.URL, "--log-group", "/kong/audit", "--region", "eu-central-1", "--relay-url", "http://relay:8080")
	if code != 0 {
		t.Fatalf("init ended with %d: %s", code, out)
	}
	cmd := exec.Command("sh", filepath.Join(dir, "kong-user.sh"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SUPER=of a super admin"}
	if said, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(said), "may read the audit log") {
		t.Fatalf("%v: %s", err, said)
	}
	mu.Lock()
	got, made := slices.Clone(asked), token
	mu.Unlock()
	want := []string{
		"POST /default/rbac/roles audit-reader",
		"POST /default/rbac/roles/audit-reader/endpoints /audit/requestsread", "POST /default/rbac/roles/audit-reader/endpoints /audit/objectsread",
		"POST /default/rbac/roles/audit-reader/endpoints /read", "POST /default/rbac/users audit-relay", "POST /default/rbac/users/audit-relay/roles audit-reader",
	}
	if !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	if env := readEnv(t, filepath.Join(dir, "relay.env")); len(made) < 40 || !slices.Contains(env, "KONG_ADMIN_TOKEN="+made) {
		t.Error("the user's token is not the relay's")
	}
	cmd = exec.Command("sh", filepath.Join(dir, "kong-user.sh"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SUPER=wrong"}
	if said, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(said), "401") {
		t.Errorf("with a wrong token: %v: %s", err, said)
	}
}

// TestInitSaysAllMistakes leaves out what cannot be guessed where nobody can be asked.
func TestInitSaysAllMistakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--relay-url", "http://relay:8080"}, []string{"KONG_ADMIN_API", "no destination is set"}},
		{[]string{"--kong-admin-api", "http://kong:8001", "--log-group", "/kong/audit", "--relay-url", "http://relay:8080"}, []string{"REGION"}},
		{[]string{"--kong-admin-api", "http://kong:8001", "--destination", "jsonl:-"}, []string{"--relay-url is not set"}},
		{[]string{"--kong-admin-api", "http://kong:8001", "--destination", "jsonl:-", "--relay-url", "relay:8080"}, []string{`--relay-url is "relay:8080"`}},
		{[]string{"--kong-admin-api", "http://kong:8001", "--destination", "jsonl:/a b", "--relay-url", "http://relay"}, []string{"RELAY_DESTINATION has characters"}},
	} {
		out, code := process(t, nil, append([]string{"init"}, c.args...)...)
		if code != exitUsage {
			t.Errorf("%v: ended with %d: %s", c.args, code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: said %s, want %s", c.args, out, want)
			}
		}
	}
	// Without a folder it prints, and takes over what variables say.
	out, code := process(t, []string{"KONG_ADMIN_API=http://kong:8001", "RELAY_DESTINATION=jsonl:/var/log/kong.jsonl", "KONG_ADMIN_TOKEN=mine"},
		"init", "--relay-url", "https://relay.internal", "--admin-url", "https://127.0.0.1:8444")
	if code != 0 || !strings.Contains(out, "KONG_ADMIN_TOKEN=mine\n") || strings.Contains(out, "kong-user.sh") || strings.Contains(out, "iam-policy") ||
		!strings.Contains(out, "url: https://127.0.0.1:8444\n") || !strings.Contains(out, "relay_url: https://relay.internal\n") {
		t.Errorf("ended with %d: %s", code, out)
	}
}
