package jsonl

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func idEvent(e *audit.Entry) (string, []byte) { return e.ID, []byte(`{"UID":"` + e.ID + `"}`) }

func put(t *testing.T, j *Writer, ids ...string) ([]audit.Verdict, error) {
	t.Helper()
	var entries []audit.Entry
	for _, id := range ids {
		entries = append(entries, audit.Entry{ID: id})
	}
	verdicts, err := j.Put(t.Context(), entries)
	if len(verdicts) != len(entries) {
		t.Fatalf("%d verdicts for %d entries", len(verdicts), len(entries))
	}
	for _, v := range verdicts {
		if (v.Status == audit.Accepted) != (err == nil) {
			t.Errorf("verdict %+v, error %v", v, err)
		}
	}
	return verdicts, err
}

func TestJSONLinesAppendToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	// A crash has torn the last line.
	if err := os.WriteFile(path, []byte("{\"UID\":\"a\"}\n{\"UI"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ids := range [][]string{{"b", "c"}, {"d"}} {
		j, err := Open(path, nil, idEvent)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := put(t, j, ids...); err != nil {
			t.Error(err)
		}
		if err := errors.Join(j.Check(t.Context()), j.Close()); err != nil {
			t.Error(err)
		}
	}
	got, err := os.ReadFile(path)
	want := "{\"UID\":\"a\"}\n{\"UI\n{\"UID\":\"b\"}\n{\"UID\":\"c\"}\n{\"UID\":\"d\"}\n"
	if err != nil || string(got) != want {
		t.Errorf("file holds %q, %v", got, err)
	}
}

func TestJSONLinesToStandardOutput(t *testing.T) {
	out := &failing{}
	j, err := Open("-", out, idEvent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, j, "a"); err != nil {
		t.Error(err)
	}
	out.fail = true
	if _, err := put(t, j, "b"); err == nil {
		t.Error("no error")
	}
	out.fail = false
	if _, err := put(t, j, "b"); err != nil {
		t.Error(err)
	}
	if want := "{\"UID\":\"a\"}\n{\"U\n{\"UID\":\"b\"}\n"; out.String() != want {
		t.Errorf("out %q", out.String())
	}
}

// failing takes three bytes and an error on request.
type failing struct {
	bytes.Buffer
	fail bool
}

func (f *failing) Write(b []byte) (int, error) {
	if !f.fail {
		return f.Buffer.Write(b)
	}
	n, _ := f.Buffer.Write(b[:3])
	return n, errors.New("no space left")
}

func TestJSONLinesToAFileThatCannotBe(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "missing", "events.jsonl"), nil, idEvent)
	if !audit.NeedsPerson(err) {
		t.Errorf("error %v", err)
	}
	j, err := Open("/dev/full", nil, idEvent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, j, "a"); err == nil {
		t.Error("no error")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}
