package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

// A file is read: what was removed, doubled, torn or emptied is found, and repaired.
func TestVerifyFile(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"cloudtrail", "ocsf"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kongtest.Options{SkipReads: true}, cloudtrailtest.Options{})
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			w.env = append(w.env, "RELAY_DESTINATION=jsonl:"+path, "RELAY_EVENT_FORMAT="+format)
			const n = 1000
			list := hostileRows(n, time.Now())
			w.kong.Add(list...)
			w.once()
			r := w.verify(exitOK)
			if d := r.Destination; d == nil || d.Confirmed != n || d.Repeated.Count+d.Unknown.Count+d.Gone+d.Unreadable > 0 {
				t.Fatalf("%+v", d)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := slices.Collect(bytes.Lines(text))
			put := func(name string, parts ...[]byte) {
				t.Helper()
				if err := os.WriteFile(name, slices.Concat(parts...), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			idOf := func(line []byte) string {
				for i := range list {
					if bytes.Contains(line, []byte(`"`+list[i].RequestID+`"`)) {
						return list[i].RequestID
					}
				}
				t.Fatalf("%.100s is no event", line)
				return ""
			}

			// Without the line 10, with the line 20 twice, and with half of the line 30.
			put(path, slices.Concat(lines[:10]...), slices.Concat(lines[11:21]...), lines[20], slices.Concat(lines[21:30]...),
				lines[30][:len(lines[30])/2], []byte("\n"), slices.Concat(lines[31:]...))
			r = w.verify(exitDifference)
			expectIDs(t, "removed and torn", r.Destination.Missing, idOf(lines[10]), idOf(lines[30]))
			expectIDs(t, "doubled", r.Destination.Repeated, idOf(lines[20]))
			if r.Destination.Unreadable != 1 || r.Destination.Extra != 1 {
				t.Errorf("%+v", r.Destination)
			}
			if r = w.verify(exitOK, "--repair"); r.Repaired == nil || r.Repaired.Delivered != 2 {
				t.Errorf("%+v", r.Repaired)
			}
			w.verify(exitOK)
			w.verify(exitDifference, "--strict")

			// Rotated three times, once with gzip, and the last line lost its end.
			put(path+".1", slices.Concat(lines[600:900]...))
			put(path+"-20260131", slices.Concat(lines[300:600]...))
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, err = z.Write(slices.Concat(lines[:300]...))
			if err == nil {
				err = z.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			put(path+".3.gz", packed.Bytes())
			put(path+".bak", slices.Concat(lines...)) // nobody's
			put(path, slices.Concat(lines[900:999]...), bytes.TrimSuffix(lines[999], []byte("\n")))
			if r = w.verify(exitOK, "--strict"); r.Destination.Confirmed != n {
				t.Errorf("rotated: %+v", r.Destination)
			}
			// What a broken archive held is missing.
			for lost, broken := range map[int][]byte{300: []byte("no archive"), 1: packed.Bytes()[:packed.Len()/2]} {
				put(path+".3.gz", broken)
				r = w.verify(exitDifference)
				if d := r.Destination; d.Unreadable != 1 || d.Missing.Count < lost || d.Missing.Count > 300 || d.Missing.Count+d.Confirmed != n {
					t.Errorf("a broken archive: %+v", d)
				}
			}

			// Emptied, and the rotated ones removed.
			for _, name := range []string{".1", "-20260131", ".3.gz"} {
				if err := os.Remove(path + name); err != nil {
					t.Fatal(err)
				}
			}
			put(path)
			if r = w.verify(exitDifference); r.Destination.Missing.Count != n {
				t.Errorf("emptied: %d missing", r.Destination.Missing.Count)
			}
			if r = w.verify(exitOK, "--repair"); r.Repaired.Delivered != n {
				t.Errorf("%+v", r.Repaired)
			}
			if r = w.verify(exitOK, "--strict"); r.Destination.Confirmed != n {
				t.Errorf("repaired: %+v", r.Destination)
			}
		})
	}
}

// A relay is killed at any moment while its file is torn, rotated and removed:
// nothing is lost that the file has kept, and verify puts back what it has not.
func TestFileFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kongtest.Options{SkipReads: true, Latency: 5 * time.Millisecond}, cloudtrailtest.Options{})
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w.env = append(w.env, "RELAY_DESTINATION=jsonl:"+path, "RELAY_LEASE_WAIT=2m")
	const n = 20_000
	w.kong.AddSeq(auditlog.Generate(n, 3, auditlog.Mix{}))
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	const kills = 3
	for i := range kills {
		r := w.start(nil, "once", "--json")
		before := size()
		eventually(t, patient, "lines before the kill", func() bool { return size() > before+int64(i)*50_000 || r.ended() })
		if err := r.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.wait(t)
		switch i {
		case 0: // a line is torn, as by a machine that lost its power
			if err := os.Truncate(path, size()-10); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.once()
	r := w.verify(exitOK, "--repair") // the line that was torn had been recorded, perhaps
	if r.Repaired != nil && r.Repaired.Delivered > 1 {
		t.Errorf("%d entries were lost", r.Repaired.Delivered)
	}
	r = w.verify(exitOK)
	if d := r.Destination; d.Confirmed != n || d.Extra > kills*8*100 || d.Unreadable > kills {
		t.Errorf("%+v", d)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r = w.verify(exitOK, "--repair"); r.Repaired == nil || !r.Repaired.Repaired {
		t.Errorf("%+v", r.Repaired)
	}
	w.verify(exitOK)
}
