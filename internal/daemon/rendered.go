package daemon

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// keepFor is how long an answer is reused, unless something changes meanwhile. However many
// clients ask, making answers thus costs little beside a pass.
const keepFor = time.Second

// rendered is an answer that is kept for a moment. It is safe for concurrent use: one
// request makes the answer while the others wait for it.
type rendered struct {
	render func(ctx context.Context, w io.Writer) error

	mu      sync.Mutex
	at      time.Time // when it was made; zero: not yet
	changes uint64    // how much had changed by then
	made    []byte
}

// body returns the answer. It does not end with the request that happens to make it.
func (a *rendered) body(ctx context.Context, now time.Time, changes uint64) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.IsZero() || changes != a.changes || now.Sub(a.at) >= keepFor || now.Before(a.at) {
		var b bytes.Buffer
		if err := a.render(context.WithoutCancel(ctx), &b); err != nil {
			return nil, err
		}
		a.at, a.changes, a.made = now, changes, b.Bytes()
	}
	return a.made, nil
}

// cached returns a handler that writes an answer that render makes.
func (s *server) cached(contentType string, render func(ctx context.Context, w io.Writer) error) http.HandlerFunc {
	a := &rendered{render: render}
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := a.body(r.Context(), time.Now(), s.updates.Load()+s.health.Changes())
		if err != nil {
			s.log.Error("answer not made", "path", r.URL.Path, "err", err)
			http.Error(w, "answer not made", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(body) // a client that went away
	}
}
