package daemon

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/verify"
)

// besideMost bounds how long an answer to a command may take.
const besideMost = time.Hour

// beside answers the commands that run beside this relay and need its ledger, where
// that is a file: one process at a time can open it.
//
// The operations listener can be reached by people who may not read the ledger: other
// users of this machine, or a cluster in which it is scraped. These paths, which show
// payloads too, ask for a key. It lies beside the ledger's file, and only the file's owner
// can read it.
type beside struct {
	app       *app.App
	key       string
	verifying sync.Mutex // held while a verification is made
}

// openBeside makes the key. It returns nil if the ledger is not a file. The function that
// it returns removes the key.
func (s *server) openBeside() (b *beside, closed func()) {
	file := s.app.Settings.LedgerFile
	if file == "" || s.app.Settings.OpsListen == "" {
		return nil, func() {}
	}
	b = &beside{app: s.app, key: rand.Text()}
	path := app.KeyFile(file)
	_ = os.Remove(path) // of a relay that was killed, perhaps with other rights
	if err := os.WriteFile(path, []byte(b.key+"\n"), 0o600); err != nil {
		s.log.Warn("commands that read the ledger do not work beside this relay", "err", err)
		return nil, func() {}
	}
	return b, func() { _ = os.Remove(path) }
}

// register adds the paths.
func (b *beside) register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+app.PathUndelivered, b.guarded(b.undelivered))
	mux.HandleFunc("GET "+app.PathOutages, b.guarded(b.outages))
	mux.HandleFunc("POST "+app.PathVerify, b.guarded(b.verify))
	mux.HandleFunc("POST "+app.PathRetry, b.guarded(b.retry))
	mux.HandleFunc("POST "+app.PathDrop, b.guarded(b.drop))
}

// guarded serves only requests that have the key.
func (b *beside) guarded(f func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	want := []byte("Bearer " + b.key)
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			refuseCommand(w, http.StatusUnauthorized, errors.New("the key beside the ledger's file is asked for"))
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(besideMost)) // else the listener's holds
		if err := f(w, r); err != nil {
			refuseCommand(w, http.StatusInternalServerError, err)
		}
	}
}

func refuseCommand(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, struct {
		Error string `json:"error"`
		Hint  string `json:"hint,omitempty"`
	}{err.Error(), audit.Hint(err)})
}

// lines returns a function that writes values as lines of JSON.
func lines(w http.ResponseWriter) func(v any) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	e := jsontext.NewEncoder(w)
	return func(v any) error { return json.MarshalEncode(e, v) }
}

func (b *beside) undelivered(w http.ResponseWriter, r *http.Request) error {
	if id := r.URL.Query().Get("id"); id != "" {
		u, found, err := b.app.Store.UndeliveredEntry(r.Context(), id)
		if err != nil || !found {
			return err
		}
		return lines(w)(&u)
	}
	write := lines(w)
	for u, err := range b.app.Store.UndeliveredEntries(r.Context()) {
		if err != nil {
			return err
		}
		if err := write(&u); err != nil {
			return nil // the client went away
		}
	}
	return nil
}

func (b *beside) outages(w http.ResponseWriter, r *http.Request) error {
	since, err := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
	if err != nil {
		return err
	}
	list, err := b.app.Store.Outages(r.Context(), since)
	if err != nil {
		return err
	}
	write := lines(w)
	for i := range list {
		if err := write(&list[i]); err != nil {
			return nil //nolint:nilerr // the client went away
		}
	}
	return nil
}

func (b *beside) retry(w http.ResponseWriter, r *http.Request) error {
	s, err := app.ParseSelection(r.URL.Query())
	if err != nil {
		return err
	}
	retried, err := b.app.Retry(r.Context(), &s)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, retried)
	return nil
}

func (b *beside) drop(w http.ResponseWriter, r *http.Request) error {
	s, err := app.ParseSelection(r.URL.Query())
	if err != nil {
		return err
	}
	dropped, err := b.app.Drop(r.Context(), &s, r.URL.Query().Get("reason"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Dropped int `json:"dropped"`
	}{dropped})
	return nil
}

// verify compares, and repairs if it is asked to, while the relay goes on: a repair waits
// for the lease as any pass does.
func (b *beside) verify(w http.ResponseWriter, r *http.Request) error {
	o, err := verify.ParseQuery(r.URL.Query())
	if err != nil {
		return err
	}
	if !b.verifying.TryLock() {
		return errors.New("another relay verify is under way")
	}
	defer b.verifying.Unlock()
	report, err := verify.Run(r.Context(), b.app, o)
	if report == nil || err != nil && report.Repaired == nil {
		return err
	}
	writeJSON(w, http.StatusOK, report)
	return nil
}
