package jsonl

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func idEvent(dst []byte, e *audit.Entry) []byte { return append(dst, `{"UID":"`+e.ID+`"}`...) }

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

func TestFileThatCannotBe(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "missing", "events.jsonl"), nil, idEvent)
	if !audit.NeedsPerson(err) {
		t.Errorf("error %v", err)
	}
}

// A full disk is a reason that is named, and says nothing about the entries.
func TestFullDisk(t *testing.T) {
	j := open(t, "/dev/full")
	verdicts, err := put(t, j, "a")
	if !errors.Is(err, syscall.ENOSPC) || !audit.IsDestinationError(err) || audit.Hint(err) == "" {
		t.Errorf("error %v, hint %q", err, audit.Hint(err))
	}
	if verdicts[0].Code != "DiskFull" || !strings.Contains(verdicts[0].Reason, "no space left") {
		t.Errorf("verdict %+v", verdicts[0])
	}
}

// Lines go into the file that has the name, whatever became of the one that had it.
func TestFileIsOpenedAgain(t *testing.T) {
	for name, rotate := range map[string]func(j *Writer, path string) error{
		"moved":   func(_ *Writer, path string) error { return os.Rename(path, path+".1") },
		"removed": func(_ *Writer, path string) error { return os.Remove(path) },
		"replaced": func(_ *Writer, path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, []byte("{}\n{"), 0o600))
		},
		"told to": func(j *Writer, path string) error { return errors.Join(os.Rename(path, path+".1"), j.Reopen()) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events.jsonl")
			j := open(t, path)
			if _, err := put(t, j, "a"); err != nil {
				t.Fatal(err)
			}
			if err := rotate(j, path); err != nil {
				t.Fatal(err)
			}
			if _, err := put(t, j, "b"); err != nil {
				t.Fatal(err)
			}
			want := "{\"UID\":\"b\"}\n"
			if name == "replaced" {
				want = "{}\n{\n" + want
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("file holds %q, %v", got, err)
			}
		})
	}
}

// While the directory is gone nothing is accepted; then the file is there again.
func TestDirectoryThatIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	path := filepath.Join(dir, "events.jsonl")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	j := open(t, path)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, j, "a"); !audit.NeedsPerson(err) {
		t.Errorf("error %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, j, "a"); err != nil {
		t.Error(err)
	}
}

// A pipe takes nothing without a reader, and the next reader gets whole lines.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, nil, idEvent); err == nil || audit.Hint(err) == "" {
		t.Errorf("opened without a reader: %v", err)
	}
	read := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	reader := read()
	j := open(t, path)
	if _, err := put(t, j, "a"); err != nil {
		t.Error(err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if verdicts, err := put(t, j, "b"); err == nil || verdicts[0].Code == "" {
			t.Errorf("accepted without a reader: %+v, %v", verdicts, err)
		}
	}
	reader = read()
	defer reader.Close()
	if _, err := put(t, j, "c"); err != nil {
		t.Error(err)
	}
	got := make([]byte, 100)
	if n, err := reader.Read(got); err != nil || string(got[:n]) != "{\"UID\":\"c\"}\n" {
		t.Errorf("read %q, %v", got[:n], err)
	}
}

// Standard output that nothing reads any more stops the pass: it will not come back.
func TestStandardOutputThatNothingReads(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	j, err := Open("-", writer, idEvent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, j, "a"); !audit.NeedsPerson(err) {
		t.Errorf("error %v", err)
	}
}

func open(t *testing.T, path string) *Writer {
	t.Helper()
	j, err := Open(path, nil, idEvent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}
