package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/time/rate"
)

// Options are the settings of a handler.
type Options struct {
	// Notify is told the announced ids; none means "look now". When it returns
	// nil they must be noted durably: the sender forgets them. It must bear
	// being told an id twice, and concurrent calls.
	Notify func(ctx context.Context, ids []string) error

	// Secrets returns the secrets that a trigger may be signed with, in the form
	// that [CheckSecret] takes: two of them while one is being replaced. It is
	// asked for each request. With no secret nothing is taken, but for Unsigned.
	Secrets func() []string
	// EventHookSecrets returns the secrets of Kong's event hooks, as plain text.
	EventHookSecrets func() []string
	// Unsigned takes requests without a signature where there is no secret to
	// check it with. Only for a listener that [Loopback] holds for.
	Unsigned bool

	// Replay claims a webhook id for d, and tells whether it was free. An error
	// refuses the trigger for now. It is not asked for the ids that this process
	// has taken: the newest 100,000 at least are remembered. If nil, no others are known.
	Replay func(ctx context.Context, id string, d time.Duration) (fresh bool, err error)

	// Rate is how many requests a second each of the two paths takes, and its
	// burst: 500 if zero. Where there is a secret, only what it has signed counts.
	Rate int
	// Observe, if not nil, is told the outcome of each request: "accepted", or
	// one of a fixed set of reasons.
	Observe func(path, outcome string)

	Logger *slog.Logger     // slog.Default() if nil
	Now    func() time.Time // time.Now if nil
}

// replayFor is how long a webhook id stays claimed: a timestamp may be as far
// in the future as in the past.
const replayFor = 2*Tolerance + time.Minute

const (
	defaultRate = 500
	// readFor bounds how long a body may take to arrive.
	readFor = 10 * time.Second
	// logEvery is the time between two lines about refusals, and about failures.
	logEvery = 10 * time.Second
)

type handler struct {
	Options

	refusals, failures sparse
	seen               *claims // webhook ids
	bodies             bodies
}

// NewHandler returns the handler for [Path] and [EventHookPath]. It answers 202
// once Notify has returned nil; 400 to a body that is not a trigger, 401 to a
// wrong signature or time, 405, 408 to a body that takes too long, 409 to a
// replay, 413, 429 over the rate, and 503 where the trigger could not be noted,
// each with its reason as JSON. 429 and 503 say when to come back.
//
// The checks, in this order: method and length; whether there is a secret;
// the form of the headers and the time in them; the body, of which no more than
// [MaxBody] is kept; its signature; its form; the ids that this process has
// taken; the rate; Replay; Notify. All before the rate costs this process a
// little of its processor and bounded memory, so that who does not know the
// secret, or sends again what was signed once, cannot use up the rate of those
// who do. What is after it may cost a round trip. Without a secret the rate
// comes before the body.
func NewHandler(o Options) http.Handler {
	if o.Rate <= 0 {
		o.Rate = defaultRate
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(string, string) {}
	}
	none := func() []string { return nil }
	if o.Secrets == nil {
		o.Secrets = none
	}
	if o.EventHookSecrets == nil {
		o.EventHookSecrets = none
	}
	h := &handler{Options: o, seen: newClaims(o.Now)}
	mux := http.NewServeMux()
	mux.Handle(Path, h.serve(Path, h.trigger))
	mux.Handle(EventHookPath, h.serve(EventHookPath, h.eventHook))
	return mux
}

// refusal is a status and a reason that is safe to log: none of the sender's words.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

var (
	errMethod    = &refusal{http.StatusMethodNotAllowed, "only POST is taken here"}
	errTooLarge  = &refusal{http.StatusRequestEntityTooLarge, "body is too large"}
	errRate      = &refusal{http.StatusTooManyRequests, "too many requests"}
	errUnread    = &refusal{http.StatusBadRequest, "body could not be read"}
	errSlow      = &refusal{http.StatusRequestTimeout, "body took too long"}
	errNoSecret  = &refusal{http.StatusUnauthorized, "no secret is configured"}
	errHeaders   = &refusal{http.StatusUnauthorized, "webhook-id, webhook-timestamp or webhook-signature is missing or malformed"}
	errTimestamp = &refusal{http.StatusUnauthorized, "webhook-timestamp is too far from the relay's clock"}
	errSignature = &refusal{http.StatusUnauthorized, "signature does not match"}
	errReplay    = &refusal{http.StatusConflict, "webhook-id has been taken before"}
	errNotNoted  = &refusal{http.StatusServiceUnavailable, "trigger could not be noted"}
)

// serve wraps what the two paths have in common around check, which returns
// the announced ids.
func (h *handler) serve(path string, check func(http.ResponseWriter, *http.Request, *rate.Limiter) ([]string, error)) http.Handler {
	limiter := rate.NewLimiter(rate.Limit(h.Rate), h.Rate)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids, err := check(w, r, limiter)
		if err == nil {
			if err = h.Notify(r.Context(), ids); err != nil {
				h.failed(r.Context(), path, err)
				err = errNotNoted
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if err == nil {
			h.Observe(path, "accepted")
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "{}\n")
			return
		}
		refused, ok := errors.AsType[*refusal](err)
		if !ok {
			refused = &refusal{http.StatusBadRequest, err.Error()}
		}
		h.refuse(w, r, path, refused)
	})
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, path string, refused *refusal) {
	h.Observe(path, refused.reason)
	if n := h.refusals.tick(h.Now()); n > 0 {
		h.Logger.WarnContext(r.Context(), "triggers refused", "count", n, "path", path,
			"status", refused.status, "reason", refused.reason, "remote", r.RemoteAddr)
	}
	switch refused.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(refused.status)
	_ = json.NewEncoder(w).Encode(answer{Reason: refused.reason})
}

func (h *handler) failed(ctx context.Context, path string, err error) {
	if n := h.failures.tick(h.Now()); n > 0 {
		h.Logger.ErrorContext(ctx, "triggers could not be noted", "count", n, "path", path, "error", err)
	}
}

// trigger checks a request to Path.
func (h *handler) trigger(w http.ResponseWriter, r *http.Request, limiter *rate.Limiter) ([]string, error) {
	secrets, err := h.begin(r, MaxBody, h.Secrets)
	if err != nil {
		return nil, err
	}
	signed := len(secrets) > 0
	if signed {
		if err := h.checkHeaders(r.Header); err != nil {
			return nil, err
		}
	} else if !limiter.AllowN(h.Now(), 1) {
		return nil, errRate
	}
	body, err := h.readBody(w, r)
	if err != nil {
		return nil, err
	}
	if signed && !verified(secrets, body, r.Header) {
		return nil, errSignature
	}
	b, err := parseBody(body)
	if err != nil {
		return nil, err
	}
	if signed {
		if err := h.claim(r.Context(), r.Header.Get(standardwebhooks.HeaderWebhookID), limiter); err != nil {
			return nil, err
		}
	}
	return b.RequestIDs, nil
}

// claim takes a webhook id, here and in the ledger, and one of the rate between
// the two. An id that the ledger has not been asked for stays free.
func (h *handler) claim(ctx context.Context, id string, limiter *rate.Limiter) error {
	if !h.seen.claim(id, replayFor) {
		return errReplay
	}
	if !limiter.AllowN(h.Now(), 1) {
		h.seen.forget(id)
		return errRate
	}
	if h.Replay == nil {
		return nil
	}
	fresh, err := h.Replay(ctx, id, replayFor)
	switch {
	case err != nil:
		h.seen.forget(id)
		h.failed(ctx, Path, err)
		return errNotNoted
	case !fresh:
		return errReplay
	}
	return nil
}

// begin checks what the head of a request tells; its body may still turn out
// larger. It returns the secrets that may have signed the request, and none only
// if it need not be signed.
func (h *handler) begin(r *http.Request, limit int64, secrets func() []string) ([]string, error) {
	switch {
	case r.Method != http.MethodPost:
		return nil, errMethod
	case r.ContentLength > limit:
		return nil, errTooLarge
	}
	list := secrets()
	if len(list) == 0 && !h.Unsigned {
		return nil, errNoSecret
	}
	return list, nil
}

func (h *handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	c := http.NewResponseController(w)
	h.bodies.begin(c)
	defer h.bodies.end(c)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	return body, readError(err)
}

func readError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow // not the sender's mistake: it may come again
	}
	return errUnread
}

// checkHeaders refuses what cannot be right, before it costs anything.
func (h *handler) checkHeaders(header http.Header) error {
	for _, name := range []string{
		standardwebhooks.HeaderWebhookID, standardwebhooks.HeaderWebhookTimestamp, standardwebhooks.HeaderWebhookSignature,
	} {
		if len(header.Values(name)) != 1 {
			return errHeaders
		}
	}
	at, err := strconv.ParseInt(header.Get(standardwebhooks.HeaderWebhookTimestamp), 10, 64)
	if err != nil || !validMessageID(header.Get(standardwebhooks.HeaderWebhookID)) ||
		len(header.Get(standardwebhooks.HeaderWebhookSignature)) > maxSignatures {
		return errHeaders
	}
	// By seconds, not by durations: a hostile timestamp overflows those.
	now, tolerance := h.Now().Unix(), int64(Tolerance/time.Second)
	if at < now-tolerance || at > now+tolerance {
		return errTimestamp
	}
	return nil
}

// maxSignatures bounds the signature header: ten signatures, in bytes.
const maxSignatures = 10 * 48

// validMessageID bounds what becomes part of a key in the ledger. The dot is
// left out: it separates the parts of what is signed.
func validMessageID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// verified tells whether one of the secrets signed the body. The timestamp has
// been checked, by the handler's own clock.
func verified(secrets []string, body []byte, header http.Header) bool {
	for _, secret := range secrets {
		if CheckSecret(secret) != nil {
			continue // an empty key would verify what anyone can sign
		}
		webhook, err := standardwebhooks.NewWebhook(secret)
		if err == nil && webhook.VerifyIgnoringTimestamp(body, header) == nil {
			return true
		}
	}
	return false
}
