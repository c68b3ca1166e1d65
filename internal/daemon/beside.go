package daemon

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/app"
)

const (
	commandMost = time.Hour // for which a command may run
	argsMost    = 64 << 10  // bytes of a command line
)

// openCommands makes the key with which other processes have this relay run commands, if its
// ledger is a file. The function that it returns removes the key.
//
// The operations listener can be reached by people who may not read the ledger: other
// users of this machine, or a cluster in which it is scraped. The key lies beside the
// ledger's file, and only the file's owner can read it.
func (s *server) openCommands() (key string, closed func()) {
	file := s.app.Settings.LedgerFile
	if file == "" || s.app.Settings.OpsListen == "" || s.opts.Command == nil {
		return "", func() {}
	}
	key = rand.Text()
	path := app.KeyFile(file)
	_ = os.Remove(path) // of a relay that was killed, perhaps with other rights
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		s.log.Warn("commands that read the ledger do not work beside this relay", "err", err)
		return "", func() {}
	}
	return key, func() { _ = os.Remove(path) }
}

// command returns a handler that runs commands for requests that have a key.
func (s *server) command(key string) http.HandlerFunc {
	want := []byte("Bearer " + key)
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			http.Error(w, "the key beside the ledger's file is asked for", http.StatusUnauthorized)
			return
		}
		var args []string
		if err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, argsMost), &args); err != nil {
			http.Error(w, "the command line cannot be read", http.StatusBadRequest)
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(commandMost)) // else the listener's holds
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Cache-Control", "no-store")
		to := jsontext.NewEncoder(w)
		write := func(out app.CommandOutput) error { return json.MarshalEncode(to, out) }
		exit := s.opts.Command(r.Context(), args,
			writerFunc(func(p []byte) error { return write(app.CommandOutput{Stdout: p}) }),
			writerFunc(func(p []byte) error { return write(app.CommandOutput{Stderr: p}) }))
		_ = write(app.CommandOutput{Exit: &exit}) // a client that went away
	}
}

// writerFunc implements [io.Writer].
type writerFunc func(p []byte) error

func (f writerFunc) Write(p []byte) (int, error) {
	if err := f(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
