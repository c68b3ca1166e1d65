package redisledger

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger/ledgertest"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
	"github.com/kong-cloudtrail/relay/internal/redistest"
)

// Every key of a ledger is in the table of relay/README.md.
func TestReadmeListsTheKeys(t *testing.T) {
	readme, err := os.ReadFile("../../../relay/README.md")
	must(t, err)
	_, table, _ := strings.Cut(string(readme), "\n| key | what | expires |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	inCode := regexp.MustCompile(`(?:r\.keys\(|r\.prefix\+|"ownreads"|"announced")[^)\n]*`)
	name := regexp.MustCompile(`"([a-z_]+:?)`)
	files, err := filepath.Glob("*.go")
	must(t, err)
	names := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		must(t, err)
		for _, call := range inCode.FindAllString(string(source), -1) {
			for _, m := range name.FindAllStringSubmatch(call, -1) {
				names[m[1]] = true
			}
		}
	}
	if len(names) < 15 {
		t.Errorf("found only %d keys: %v", len(names), names)
	}
	for name := range names {
		if !strings.Contains(table, "`"+name) {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// TestRedisDeclaresKeys watches the server run every script: a key that a script
// touches without having declared it breaks a cluster that moves slots, and is
// refused by some servers.
func TestRedisDeclaresKeys(t *testing.T) {
	t.Parallel()
	if !haveServer(t) {
		return
	}
	s := redistest.Start(t)
	monitor, err := net.Dial("tcp", s.Addr)
	must(t, err)
	defer monitor.Close()
	must(t, monitor.SetDeadline(time.Now().Add(5*time.Minute)))
	value(fmt.Fprint(monitor, "MONITOR\r\n"))(t)
	lines := bufio.NewReader(monitor)
	value(lines.ReadString('\n'))(t)

	r := openRedis(t, redisconn.Options{Addrs: []string{s.Addr}})
	must(t, r.Begin(bg()))
	var records []audit.Record
	var entries []audit.Entry
	for i := range 3000 { // enough to split
		outcome := audit.Delivered
		if i%100 == 0 {
			outcome = audit.Dead
		}
		at := int64(noon + i%2*86400)
		records = append(records, ledgertest.Record(ledgertest.ID(i), at, outcome))
		entries = append(entries, audit.Entry{ID: ledgertest.ID(i), Timestamp: at})
	}
	must(t, r.Record(bg(), records))
	outcomes(t, r, entries...)
	must(t, r.Record(bg(), []audit.Record{ledgertest.Record(ledgertest.ID(0), noon, audit.Dropped)}))
	lease := value(r.Acquire(bg(), true))(t)
	must(t, lease.SetMarks(bg(), audit.Marks{Cursor: 1}))
	value(lease.Renew(bg()))(t)
	must(t, r.BindKong(bg(), "http://kong:8001", false))
	must(t, r.BindAccount(bg(), "111111111111", false))
	must(t, r.Announce(bg(), []string{"x"}, time.Now()))
	must(t, r.NoteOwnReads(bg(), []string{"y"}))
	value(r.ReserveNonce(bg(), "z", time.Hour))(t)
	value(r.Remember(bg(), 0, []audit.Item{{Key: "k", Value: []byte("v"), Until: time.Now().Add(time.Hour)}}, 1))(t)
	_, _, err = r.Recall(bg(), []string{"k"})
	must(t, err)
	for _, err := range r.UndeliveredEntries(bg()) {
		must(t, err)
	}
	value(lease.Release(bg()))(t)
	must(t, plainClient(t, s).Echo(bg(), "the end").Err())

	quoted := regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	var declared []string
	scripts, calls := 0, 0
	for {
		line, err := lines.ReadString('\n')
		must(t, err)
		if strings.Contains(line, `"the end"`) {
			break
		}
		var words []string
		for _, q := range quoted.FindAllString(line, -1) {
			w, err := strconv.Unquote(q)
			if err != nil {
				w = q
			}
			words = append(words, w)
		}
		switch command := strings.ToLower(words[0]); {
		case command == "evalsha" || command == "eval":
			n := value(strconv.Atoi(words[2]))(t)
			declared = words[3 : 3+n]
			scripts++
		case strings.Contains(line, " lua] "):
			keys := words[1:2]
			if command == "mget" {
				keys = words[1:]
			}
			for _, key := range keys {
				calls++
				if !slices.Contains(declared, key) {
					t.Fatalf("%s touches %s, which is not declared", command, key)
				}
			}
		}
	}
	if scripts < 15 || calls < 100 {
		t.Errorf("%d scripts and %d keys seen", scripts, calls)
	}
}
