package lambdahost

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// urlHandler takes triggers at the function's URL, with the checks that the
// listener has. A function cannot go on after its answer, so it notes the ids,
// invokes itself for them, and then says 202. Without a secret it takes nothing.
func (h *host) urlHandler() http.Handler {
	o := h.app.TriggerOptions()
	o.Notify = func(ctx context.Context, ids []string) error {
		now := time.Now()
		if err := h.app.Store.Announce(ctx, ids, now); err != nil {
			return err
		}
		return h.invokeForIDs(ctx, ids, now)
	}
	o.Poll = func() { h.pollWanted = true }
	return trigger.NewHandler(o)
}

// invokeForIDs invokes the function for ids that were announced at a time, or for a poll
// if there are none.
func (h *host) invokeForIDs(ctx context.Context, ids []string, at time.Time) error {
	body := trigger.Body{RequestIDs: append([]string{}, ids...), SentAt: at.UTC()} // an empty list, not null
	return h.self.invoke(ctx, trigger.Invocation{Trigger: &body})
}

// pollEvery is the least time between two invocations for polls alone, by environment.
const pollEvery = time.Second

// passPollOn invokes the function if the request just answered asked for a poll. Requests
// of an environment come one after the other.
func (h *host) passPollOn(ctx context.Context) {
	now := time.Now().Round(0) // by the wall clock, since the process is frozen between requests
	if !h.pollWanted || now.Sub(h.polled) < pollEvery {
		return
	}
	h.pollWanted, h.polled = false, now
	if err := h.invokeForIDs(ctx, nil, now); err != nil {
		h.log.Warn("poll not passed on, the schedule makes up for it", app.ErrorAttrs(err)...)
	}
}

// serveURL answers a request to the function's URL.
func (h *host) serveURL(ctx context.Context, in *events.LambdaFunctionURLRequest) events.LambdaFunctionURLResponse {
	w := &urlAnswer{header: http.Header{}}
	if r, err := toHTTPRequest(ctx, in); err != nil {
		w.header.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		w.body.WriteString(`{"reason":"request could not be read"}` + "\n")
	} else {
		h.urls.ServeHTTP(w, r)
		h.passPollOn(ctx)
	}
	w.WriteHeader(http.StatusOK) // has no effect after another status
	out := events.LambdaFunctionURLResponse{StatusCode: w.status, Headers: map[string]string{}, Body: w.body.String()}
	for name := range w.header {
		out.Headers[name] = w.header.Get(name)
	}
	return out
}

// toHTTPRequest converts the event of a function URL.
func toHTTPRequest(ctx context.Context, in *events.LambdaFunctionURLRequest) (*http.Request, error) {
	u, err := url.ParseRequestURI(in.RawPath)
	if err != nil {
		return nil, fmt.Errorf("reading the path: %w", err)
	}
	u.RawQuery = in.RawQueryString
	body := []byte(in.Body)
	if in.IsBase64Encoded {
		if body, err = base64.StdEncoding.DecodeString(in.Body); err != nil {
			return nil, fmt.Errorf("reading the body: %w", err)
		}
	}
	r, err := http.NewRequestWithContext(ctx, in.RequestContext.HTTP.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Host, r.RemoteAddr = in.RequestContext.DomainName, in.RequestContext.HTTP.SourceIP
	for name, value := range in.Headers {
		r.Header.Set(name, value)
	}
	return r, nil
}

// urlAnswer is an [http.ResponseWriter] that keeps the answer.
type urlAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *urlAnswer) Header() http.Header { return a.header }

func (a *urlAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *urlAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}
