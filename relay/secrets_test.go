package main

import (
	"bytes"
	"compress/flate"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"html"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/entities"
)

// Secrets of entities are nowhere but in Kong, in no form: neither in events, the ledger, the
// log, the relay's pages and metrics, the page that shows what arrived, nor in what commands
// print.
func TestSecretsStayInKong(t *testing.T) {
	for ledger, destination := range map[string]string{"redis": "lake", "file": "logs"} {
		t.Run(ledger+" and "+destination, func(t *testing.T) {
			t.Parallel()
			w := &edited{world: newWorld(t, kongtest.Options{SkipReads: true, NoPayloads: true, PayloadExclude: []string{}}, cloudtrailtest.Options{})}
			file := filepath.Join(t.TempDir(), "ledger.db")
			if ledger == "file" {
				w.env = append(w.env, "RELAY_LEDGER=bolt:"+file)
			}
			page, events := "", w.trail.Events
			if destination == "logs" {
				events = w.deliverToLogs(cloudwatchtest.Options{}).Events
				page = w.get("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS")
			}
			arrived := func() (texts []string) {
				for _, e := range events() {
					texts = append(texts, e.Data)
				}
				return texts
			}
			planted := entities.Plantings(7)
			r, url, ops := w.serve("RELAY_OBJECTS=true", "RELAY_LOG_LEVEL=debug")
			w.urls = []string{url}
			all := func(what string, edit func(*entities.Planting) entities.Edit) {
				t.Helper()
				before := len(arrived())
				for i := range planted {
					w.one(edit(&planted[i]), true)
				}
				eventually(t, 2*time.Minute, what, func() bool { return len(arrived()) >= before+len(planted) })
			}
			all("the entities that were made", func(p *entities.Planting) entities.Edit { return p.Create })
			all("the secrets that were changed", func(p *entities.Planting) entities.Edit { return p.Change })
			all("the other changes", func(p *entities.Planting) entities.Edit { return p.Other })

			w.judgePlantings(planted, arrived())

			shown := map[string]string{}
			get := func(url string) {
				if _, shown[url] = fetchOps(t, url); shown[url] == "" {
					t.Errorf("%s shows nothing", url)
				}
			}
			for _, path := range []string{"/", "/status", "/metrics", "/history/" + planted[2].DAO + "/" + planted[2].Key} {
				get(ops + path)
			}
			if page != "" {
				get(page)
				get(page + "/latest?after=0")
				for n := range arrived() {
					get(fmt.Sprint(page, "/events/", n+1))
				}
			} else { // what the destination refuses is kept: here the first secrets again
				w.trail.SetFaults(cloudtrailtest.Faults{Events: map[string]float64{"InvalidData": 1}})
				for i := range planted {
					w.one(planted[i].Create, true)
				}
				eventually(t, 2*time.Minute, "dead letters", func() bool {
					out, _ := w.says(exitOK, "dead", "list", "--json")
					shown["dead list"] = out
					return strings.Count(out, "\n") >= len(planted)
				})
				for id := range w.undelivered() {
					out, log := w.says(exitOK, "dead", "show", id)
					shown["dead show"] = out + log
					if strings.Contains(out, "[secret ") {
						break
					}
				}
				if !strings.Contains(shown["dead show"], "[secret ") {
					t.Error("no dead letter says what changed")
				}
			}
			tapped := w.start([]string{"RELAY_LEDGER=bolt:" + filepath.Join(t.TempDir(), "tap.db"), "RELAY_OBJECTS=true", "RELAY_LOG_LEVEL=debug"}, "tap", "--full")
			if code := tapped.wait(t); code != exitOK || strings.Count(tapped.stdout.String(), "\n") < len(planted) {
				t.Errorf("relay tap ended with %d: %s", code, tail(tapped.stderr.String(), 1000))
			}
			shown["relay tap"] = tapped.stdout.String() + tapped.stderr.String()
			for i, p := range planted {
				if i%4 > 1 { // a process each
					continue
				}
				out, log := w.says(exitOK, "history", fmt.Sprintf("--json=%t", i%4 == 0), p.DAO+"/"+p.Key)
				shown["relay history"] += out + log
			}
			if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			r.wait(t)
			shown["log"] = r.stderr.String() + r.stdout.String()
			shown["ledger"] = inflated(w.ledgerBytes(ledger, file))
			shown["events"] = strings.Join(arrived(), "\n")
			if !strings.Contains(shown["ledger"], "[secret ") {
				t.Error("the ledger holds no digest: it was not read")
			}
			n, kinds := 0, map[string]bool{}
			for _, p := range planted {
				for _, s := range p.Secrets {
					n++
					kinds[s.Place] = true
					for _, form := range formsOf(s) {
						for where, text := range shown {
							if strings.Contains(text, form) {
								t.Errorf("%s: the secret of %s shows as %.20s…", where, s.Place, form)
							}
						}
					}
				}
			}
			if n < 100 || len(kinds) < 25 {
				t.Errorf("%d secrets in %d kinds of places", n, len(kinds))
			}
			t.Logf("%d secrets in %d kinds of places; %d bytes of the ledger, %d of events", n, len(kinds), len(shown["ledger"]), len(shown["events"]))
		})
	}
}

// judgePlantings checks that what events say of a secret is that it changed where it did. A relay that stood
// still may have sent events before their changes could be read: those events say so, and only half of them may.
func (w *edited) judgePlantings(planted []entities.Planting, arrived []string) {
	w.tb.Helper()
	said := map[string][]string{} // by key, in the order of time: fields that differ
	var events []struct {
		EventName        string
		ResponseElements *struct {
			Changes []struct {
				Key, Operation string
				From, To       []entities.Field
			}
			Late bool
		}
	}
	late, unsaid := map[string]int{}, 0 // late events by name
	for _, ev := range arrived {
		events = slices.Grow(events, 1)[:len(events)+1]
		if err := json.Unmarshal([]byte(ev), &events[len(events)-1], json.MatchCaseInsensitiveNames(true)); err != nil {
			w.tb.Fatal(err)
		}
	}
	for _, e := range events {
		if e.ResponseElements == nil {
			continue
		}
		if e.ResponseElements.Late {
			late[e.EventName]++
		}
		for _, c := range e.ResponseElements.Changes {
			if c.Operation != "update" {
				continue
			}
			text := ""
			for _, f := range c.To {
				text += fmt.Sprintf("%s=%s\n", f.Path, f.Value)
			}
			said[c.Key] = append(said[c.Key], text)
		}
	}
	for _, p := range planted {
		list := said[p.Key]
		slices.SortFunc(list, func(a, b string) int { return strings.Count(a, "/tags=") - strings.Count(b, "/tags=") })
		unsaid += 2 - len(list)
		if n := late[p.Change.Method+p.Change.Path]; len(list) > 2 || len(list)+n < 2 {
			w.tb.Errorf("%s: %d updates are said, and %d are late", p.Secrets[0].Place, len(list), n)
		}
		if (len(list) > 1 || len(list) == 1 && !strings.Contains(list[0], "/tags=")) && !strings.Contains(list[0], "[secret ") {
			w.tb.Errorf("%s: the secret that was changed does not show as changed: %s", p.Secrets[0].Place, list[0])
		}
		if len(list) > 1 && strings.Contains(list[1], "[secret ") {
			w.tb.Errorf("%s: a secret that was not changed shows: %s", p.Secrets[0].Place, list[1])
		}
	}
	if unsaid > len(planted) {
		w.tb.Errorf("%d updates of %d entities are not said", unsaid, len(planted))
	}
}

// ledgerBytes returns all that a ledger stores, as it stores it.
func (w *edited) ledgerBytes(kind, file string) []byte {
	w.tb.Helper()
	if kind == "file" {
		b, err := os.ReadFile(file)
		if err != nil {
			w.tb.Fatal(err)
		}
		return b
	}
	redisDo(w.tb, w.redis.Addr, "CONFIG", "SET", "rdbcompression", "no")
	return []byte(redisDo(w.tb, w.redis.Addr, "EVAL", `local all = {}
for _, key in ipairs(redis.call("KEYS", "*")) do all[#all + 1] = key .. redis.call("DUMP", key) end
return table.concat(all)`, "0"))
}

// inflated returns bytes, with what any part of them is in compressed form.
func inflated(b []byte) string {
	var all strings.Builder
	all.Write(b)
	in := bytes.NewReader(nil)
	out := flate.NewReader(in)
	for i, c := range b {
		if c != 'z' { // comes before what is compressed
			continue
		}
		in.Reset(b[i+1:])
		if err := out.(flate.Resetter).Reset(in, nil); err != nil {
			continue
		}
		_, _ = io.Copy(&all, io.LimitReader(out, 1<<20)) // most of it is not compressed
	}
	return all.String()
}

// formsOf returns what gives a secret away: itself, and as it looks in usual encodings and
// as a sum without a key.
func formsOf(s entities.Secret) []string {
	forms := []string{s.Value, strings.ToLower(s.Value), strings.ToUpper(s.Value), url.QueryEscape(s.Text)}
	hexed := hex.EncodeToString([]byte(s.Value))
	forms = append(forms, hexed, strings.ToUpper(hexed), html.EscapeString(s.Text))
	for _, format := range []string{"%%%02x", "%%%02X", `\u%04x`, `\u%04X`, "&#%d;", "&#%03d;", "&#x%x;", "&#x%X;", `\x%02x`, "%02x:", "%02X "} {
		var coded strings.Builder // each byte of it
		for _, b := range []byte(s.Value) {
			fmt.Fprintf(&coded, format, b)
		}
		forms = append(forms, strings.TrimRight(coded.String(), ": "))
	}
	for shift := range 3 { // within a longer text, base64 has three forms
		text := strings.Repeat("x", shift) + s.Value
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			coded := enc.EncodeToString([]byte(text))
			forms = append(forms, coded[shift+1:len(coded)-3])
		}
	}
	for _, text := range []string{s.Value, s.Text, strconv.Quote(s.Value)} {
		for _, h := range []func() hash.Hash{md5.New, sha1.New, sha256.New, sha512.New} {
			h := h()
			h.Write([]byte(text))
			sum := h.Sum(nil)
			coded := hex.EncodeToString(sum)
			forms = append(forms, coded[:24], strings.ToUpper(coded)[:24], base64.StdEncoding.EncodeToString(sum)[:20], base64.URLEncoding.EncodeToString(sum)[:20])
		}
	}
	return forms
}
