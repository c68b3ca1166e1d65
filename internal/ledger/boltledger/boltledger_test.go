package boltledger

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
)

func openBolt(t *testing.T, path string) *Ledger {
	t.Helper()
	b, err := Open(path, Options{})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func TestBoltFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	b := openBolt(t, path)
	info, err := os.Stat(path)
	must(t, err)
	equal(t, info.Mode().Perm(), os.FileMode(0o600))
	must(t, b.Begin(bg()))
	must(t, b.Record(bg(), []audit.Record{ledgertest.Record("a", noon, audit.Delivered), ledgertest.Record("b", noon, audit.Dead)}))

	var settings *audit.SettingsError
	_, err = Open(path, Options{})
	if !errors.As(err, &settings) || !strings.Contains(err.Error(), "in use by another relay") {
		t.Errorf("opened twice: %v", err)
	}
	must(t, b.Close())
	if err := b.Ping(bg()); err == nil {
		t.Error("closed, and alive")
	}

	b = openBolt(t, path)
	must(t, b.Begin(bg()))
	equal(t, outcomes(t, b, audit.Entry{ID: "a", Timestamp: noon}, audit.Entry{ID: "b", Timestamp: noon}),
		[]audit.Outcome{audit.Delivered, audit.Dead})

	broken := filepath.Join(t.TempDir(), "broken")
	must(t, os.WriteFile(broken, []byte(strings.Repeat("no ledger ", 5000)), 0o600))
	for _, path := range []string{broken, filepath.Join(t.TempDir(), "missing", "ledger.db")} {
		if _, err := Open(path, Options{}); !errors.As(err, &settings) || audit.Hint(settings) == "" {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestBoltExpires(t *testing.T) {
	b := openBolt(t, filepath.Join(t.TempDir(), "ledger.db"))
	now := time.Unix(noon, 0)
	b.now = func() time.Time { return now }
	must(t, b.Begin(bg()))
	short, long := ledgertest.Record("short", noon, audit.Dead), ledgertest.Record("long", noon+86400, audit.Delivered)
	short.Retention = 0
	must(t, b.Record(bg(), []audit.Record{short, long}))
	again := short
	again.ID = "again"
	again.Retention = 100 * time.Hour
	must(t, b.Record(bg(), []audit.Record{again})) // lengthens
	again.Retention = 0
	must(t, b.Record(bg(), []audit.Record{again})) // does not shorten
	entries := []audit.Entry{{ID: "short", Timestamp: noon}, {ID: "again", Timestamp: noon}, {ID: "long", Timestamp: noon + 86400}}
	now = now.Add(123 * time.Hour)
	must(t, b.Begin(bg()))
	equal(t, outcomes(t, b, entries...), []audit.Outcome{audit.Dead, audit.Dead, audit.Delivered})
	now = now.Add(2 * time.Hour)
	equal(t, outcomes(t, b, entries...), []audit.Outcome{audit.NoOutcome, audit.NoOutcome, audit.Delivered})
	must(t, b.Record(bg(), []audit.Record{ledgertest.Record("new", noon, audit.Delivered)})) // into an expired day
	equal(t, outcomes(t, b, entries...), []audit.Outcome{audit.NoOutcome, audit.NoOutcome, audit.Delivered})
	_, ok, err := b.UndeliveredEntry(bg(), "short")
	must(t, err)
	equal(t, ok, true)

	value(b.ReserveNonce(bg(), "nonce", time.Hour))(t)
	now = now.Add(32 * 24 * time.Hour)
	must(t, b.Begin(bg()))
	must(t, b.db.View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{daysBucket, expiryBucket, noncesBucket} {
			if k, _ := tx.Bucket(name).Cursor().First(); k != nil {
				t.Errorf("%s is not empty", name)
			}
		}
		return nil
	}))
}

// A file is the ledger of one source and one destination.
func TestBoltBelongsToOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	open := func(source, destination string, adopt bool) error {
		b, err := Open(path, Options{Source: source, Destination: destination, Adopt: adopt})
		if err == nil {
			must(t, b.Begin(bg()))
			must(t, b.Close())
		}
		return err
	}
	must(t, open("kong", "jsonl:/mistyped", false)) // nothing hangs on it yet
	b := openBolt(t, path)
	must(t, b.Begin(bg()))
	must(t, b.Record(bg(), []audit.Record{ledgertest.Record("c", noon, audit.Delivered)}))
	must(t, b.db.Update(func(tx *bbolt.Tx) error { // as it was before files knew whose they are
		return errors.Join(tx.Bucket(metaBucket).Delete(sourceKey), tx.Bucket(metaBucket).Delete(destinationKey))
	}))
	must(t, b.Close())
	refused := func(err error, text string) {
		t.Helper()
		if !audit.NeedsPerson(err) || audit.Hint(err) == "" || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
	refused(open("kong", "jsonl:/a", false), "used before")
	must(t, open("kong", "jsonl:/a", true))
	must(t, open("kong", "jsonl:/a", false))
	refused(open("kong", "jsonl:/b", true), "jsonl:/a, not of jsonl:/b")
	refused(open("other", "jsonl:/a", false), "kong, not of other")
	must(t, open("kong", "", false)) // a command that needs no destination
}

// A file that is cut or broken is an error with a hint wherever the damage is, and
// never the end of the process.
func TestBoltBroken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	b := openBolt(t, path)
	must(t, b.Begin(bg()))
	var records []audit.Record
	var entries []audit.Entry
	for i := range 3000 {
		at := int64(noon + i%3*86400)
		records = append(records, ledgertest.Record(ledgertest.ID(i), at, audit.Delivered))
		entries = append(entries, audit.Entry{ID: ledgertest.ID(i), Timestamp: at})
	}
	must(t, b.Record(bg(), records))
	must(t, b.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	failed := 0
	try := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, content, 0o600))
		b, err := Open(path, Options{})
		if err == nil {
			err = b.Begin(bg())
			if err == nil {
				_, err = b.Lookup(bg(), entries)
			}
			if err == nil {
				err = b.Record(bg(), records)
			}
			must(t, b.Close())
		}
		if err != nil {
			failed++
			if !errors.Is(err, audit.ErrLedgerReplaced) && (!audit.NeedsPerson(err) || audit.Hint(err) == "") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	const page = 4096
	for size := page / 2; size < len(whole)/2; size += len(whole) / 30 {
		before := failed
		if try(fmt.Sprint("cut", size), whole[:size]); failed == before {
			t.Errorf("cut to %d of %d bytes, and nobody noticed", size, len(whole))
		}
	}
	for at := 2 * page; at < len(whole); at += page {
		for _, garbage := range []byte{0, 0xff} {
			content := bytes.Clone(whole)
			for i := at; i < min(at+page, len(content)); i++ {
				content[i] = garbage
			}
			try(fmt.Sprint("garbage", garbage, "at", at), content)
		}
	}
	t.Logf("%d damaged files were refused", failed)
}

// A file that is removed, replaced or cut off while it is open is an error at the next write:
// what is recorded in it would be gone once the relay ends.
func TestBoltFileIsGone(t *testing.T) {
	entry := []audit.Record{ledgertest.Record(ledgertest.ID(1), noon, audit.Delivered)}
	for name, harm := range map[string]func(path string) error{
		"removed":  os.Remove,
		"moved":    func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error { return os.Rename(path+".copy", path) },
		"cut":      func(path string) error { return os.Truncate(path, 100) },
		"emptied":  func(path string) error { return os.Truncate(path, 0) },
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		b := openBolt(t, path)
		must(t, b.Begin(bg()))
		must(t, b.Record(bg(), entry))
		content, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path+".copy", content, 0o600))
		must(t, harm(path))
		for range 2 {
			if err := b.Record(bg(), entry); !audit.NeedsPerson(err) || audit.Hint(err) == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if name == "moved" {
			must(t, os.Rename(path+".old", path))
			must(t, b.Record(bg(), entry)) // it is back
		}
		must(t, b.Close())
	}
}

// An undelivered entry that is broken is an error of its own, and the others are read. It can be dropped.
func TestBoltUnreadableEntry(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"entry":`, `null`, `{}`, `{"outcome":2}`, `{"entry":{"id":"b"}}`, ``} {
		b := openBolt(t, filepath.Join(t.TempDir(), "ledger.db"))
		must(t, b.Begin(t.Context()))
		since := time.UnixMilli(time.Now().UnixMilli())
		records := make([]audit.Record, 3)
		for i, id := range []string{"a", "b", "c"} {
			e := audit.Entry{ID: id, Timestamp: since.Unix()}
			records[i] = audit.Record{ID: id, Timestamp: e.Timestamp, Retention: time.Hour, Outcome: audit.Dead, Undelivered: &audit.Undelivered{Entry: e, Since: since}}
		}
		must(t, b.Record(t.Context(), records))
		must(t, b.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(undeliveredBucket).Put(idKey("b"), []byte(text))
		}))
		read := map[string]bool{} // whether it is readable
		for u, err := range b.UndeliveredEntries(t.Context()) {
			if err != nil && !audit.IsUnreadable(err) || u.Outcome != audit.Dead || !u.Since.Equal(since) {
				t.Errorf("%s: %+v: %v", text, u, err)
			}
			read[u.Entry.ID] = err == nil
		}
		if want := map[string]bool{"a": true, "b": false, "c": true}; !maps.Equal(read, want) {
			t.Errorf("%s: got %v, want %v", text, read, want)
		}
		u, found, err := b.UndeliveredEntry(t.Context(), "b")
		if !found || u.Entry.ID != "b" || !audit.IsUnreadable(err) {
			t.Errorf("%s: %+v, %t, %v", text, u, found, err)
		}
		must(t, b.Record(t.Context(), []audit.Record{{ID: u.Entry.ID, Timestamp: u.Entry.Timestamp, Outcome: audit.Dropped}}))
		if c, err := b.UndeliveredCounts(t.Context()); err != nil || c.Dead != 2 {
			t.Errorf("%s: %+v: %v", text, c, err)
		}
	}
}

// What is broken in a list hides no other.
func TestBoltBrokenListItems(t *testing.T) {
	t.Parallel()
	b := openBolt(t, filepath.Join(t.TempDir(), "ledger.db"))
	must(t, b.Begin(t.Context()))
	now := time.UnixMilli(time.Now().UnixMilli()).UTC()
	for i, id := range []string{"a", "b", "c"} {
		at := now.Add(time.Duration(i) * time.Minute)
		must(t, b.PutOutage(t.Context(), audit.Outage{ID: id, Dependency: "kong", From: at, Seen: at}))
	}
	must(t, b.Announce(t.Context(), []string{"a", "b", "c"}, now))
	must(t, b.NoteOwnReads(t.Context(), []string{"a", "b", "c"}))
	for _, text := range []string{`{"id":"b","from":`, `null`, `{}`, ``} {
		must(t, b.db.Update(func(tx *bbolt.Tx) error {
			return errors.Join(tx.Bucket(outagesBucket).Put(append(toKey(now.Add(time.Minute).UnixMilli()), "b"...), []byte(text)),
				tx.Bucket(announcedBucket).Put(idKey("b"), []byte("x")), tx.Bucket(ownReadsBucket).Put(idKey("b"), []byte("x")))
		}))
		list, err := b.Outages(t.Context(), now.Add(-time.Minute))
		if err != nil || len(list) != 3 || list[0].ID != "a" || list[2].ID != "c" {
			t.Fatalf("%s: %+v: %v", text, list, err)
		}
		if o := list[1]; o.ID != "b" || o.Dependency != audit.UnknownDependency || !o.From.Equal(now.Add(time.Minute)) || o.Lasts(now) || !strings.Contains(o.Cause, "broken") {
			t.Errorf("%s: %+v", text, o)
		}
	}
	if list, err := b.Announced(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("announced %v: %v", list, err)
	}
	if own, err := b.AreOwnReads(t.Context(), []string{"a", "b", "c"}); err != nil || !slices.Equal(own, []bool{true, false, true}) {
		t.Errorf("own reads %v: %v", own, err)
	}
	must(t, b.Announce(t.Context(), []string{"b"}, now)) // which mends it
	if list, err := b.Announced(t.Context()); err != nil || len(list) != 3 {
		t.Errorf("announced %v: %v", list, err)
	}
}

// A day of which the end is broken keeps its ids.
func TestBoltBrokenExpiry(t *testing.T) {
	t.Parallel()
	b := openBolt(t, filepath.Join(t.TempDir(), "ledger.db"))
	must(t, b.Begin(bg()))
	at := time.Now().Unix()
	record := func(id string) []audit.Record {
		return []audit.Record{{ID: id, Timestamp: at, Retention: time.Hour, Outcome: audit.Delivered}}
	}
	must(t, b.Record(bg(), record("a")))
	day := toKey(ledger.DayOf(at))
	must(t, b.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(expiryBucket).Put(day, []byte("x")) }))
	b.purgeNext = time.Time{}
	for _, id := range []string{"a", "b"} {
		if got, err := b.Lookup(bg(), []audit.Entry{{ID: "a", Timestamp: at}}); err != nil || got[0] != audit.Delivered {
			t.Errorf("%v, %v", got, err)
		}
		must(t, b.Record(bg(), record(id)))
	}
	must(t, b.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(expiryBucket).Get(day); len(v) != 8 {
			t.Errorf("the end is still %q", v)
		}
		return nil
	}))
}
