package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// TestScript runs the program as a user does: testdata/script holds command lines,
// and what is said and returned. KONG, TRAIL and REDIS are servers that work, OTHER is
// a second address of KONG, and CLOSED a port at which nobody listens. Each script has its own ledger, in a file.
func TestScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
	now := time.Now()
	rows := slices.Collect(auditlog.Generate(1500, 1, auditlog.Mix{From: now.Add(-48 * time.Hour), To: now.Add(-time.Minute)}))
	w.kong.Add(rows...)
	for row, change := range map[*auditlog.Row]auditlog.Object{
		&rows[0]:    {ID: "a", Operation: "create", Entity: `{"name":"orders","paths":["\/a"],"updated_at":%d}`},
		&rows[1499]: {ID: "b", Operation: "update", Entity: `{"name":"orders","paths":["\/b"],"updated_at":%d}`},
	} {
		change.RequestID, change.RequestTimestamp, change.EntityKey, change.DAOName = row.RequestID, row.RequestTimestamp, "6c0e1a52-3a0e-4b1e-9a53-3c3f5d1d8f10", "routes"
		change.Entity = fmt.Sprintf(change.Entity, row.RequestTimestamp)
		w.kong.AddObjects(change)
	}
	other, err := w.kong.Start()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := relayBinary()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Vars = append(env.Vars,
				"CLOSED=127.0.0.1:1", "REDIS="+w.redis.Addr, "KONG="+w.kongURL, "OTHER="+other, "TRAIL="+w.trailURL, "TOKEN="+testToken, "CHANNEL="+cloudtrailtest.ChannelARN,
				"RELAY_LEDGER=bolt:"+env.WorkDir+"/ledger.db", "REGION=eu-central-1", "AWS_EC2_METADATA_DISABLED=true",
				"AWS_ACCESS_KEY_ID="+cloudtrailtest.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+cloudtrailtest.SecretAccessKey,
				"AWS_ENDPOINT_URL_CLOUDTRAIL_DATA="+w.trailURL)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits runs a command that has to end with a code: exits 2 relay once.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits <code> <program> [<argument>…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("ended with %d, want %d", code, want)
	}
}
