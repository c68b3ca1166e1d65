package trigger

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"golang.org/x/time/rate"
)

// Options are the settings of a handler. Only Notify is required.
type Options struct {
	// Notify announces ids, or asks for a poll if there are none. When it returns
	// nil the ids must be stored durably: the sender forgets them. It must accept
	// an id more than once, and it is called concurrently.
	Notify func(ctx context.Context, ids []string) error
	// Poll asks for a poll and stores nothing. It is called for each request that
	// was validly signed and then refused for its rate, so the callee has to
	// coalesce the calls. It must return at once.
	Poll func()

	// Secrets returns the secrets of a path, two of them while one is being replaced:
	// those of [Path] in the form that [CheckSecret] accepts, those of [EventHookPath]
	// and the passwords of [HTTPLogPath] as plain text. It is called for each request.
	// It is called again, with reread, if none of them fits, as they may have been
	// rotated; anyone can cause this, so it has to bound how often it really reads.
	// Without a secret every request is refused, unless Unsigned is set.
	Secrets func(path string, reread bool) []string
	// Unsigned accepts requests without a signature on a path that has no secret.
	// It is meant for a listener that [Loopback] holds for, and for no other.
	Unsigned bool

	// ReserveNonce reserves a webhook id for d and reports whether it was free.
	// An error refuses the trigger with 503. Ids that this process has accepted
	// are not looked up again: it remembers at least the newest 100,000. If
	// ReserveNonce is nil, no others are known.
	ReserveNonce func(ctx context.Context, id string, d time.Duration) (fresh bool, err error)

	// Rate is the number of requests a second that each path accepts, and its
	// burst: 500 if zero. On a path with a secret only signed requests count.
	Rate int
	// Observe, if not nil, receives the outcome of each request: [Accepted], or why it
	// was refused.
	Observe func(path, outcome string)

	Logger *slog.Logger     // slog.Default() if nil
	Now    func() time.Time // time.Now if nil
}

const (
	// reserveFor is how long a webhook id stays reserved. A timestamp may be Tolerance in the
	// future, and is accepted until it is Tolerance in the past.
	reserveFor = 2*Tolerance + time.Minute
	// maxNonces bounds the webhook ids that this process remembers. Replaying one that it
	// has forgotten costs a poll.
	maxNonces   = 100_000
	defaultRate = 500
	// readFor is the time in which a body must arrive.
	readFor = 10 * time.Second
	// logEvery is the time between two lines about refusals, and about failures.
	logEvery = 10 * time.Second
)

type handler struct {
	Options

	refusals, failures logLimiter
	nonces             recent[struct{}]      // webhook ids
	hooks              recent[*rate.Limiter] // by digest
	bodies             bodyLimiter
}

// NewHandler returns the handler for [Path], [EventHookPath] and [HTTPLogPath].
// It answers 202 once Notify has returned nil. It answers 400 to a body of the
// wrong form, 401 to a wrong signature, password or time, 405, 408 to a body that
// takes too long, 409 to a replayed trigger, 413, 429 to what exceeds the rate,
// and 503 if the trigger could not be stored. The body of a refusal is its reason
// as JSON. 429 and 503, after which the same trigger can succeed, come with Retry-After.
//
// A trigger is checked in this order: method and length; whether there is a
// secret; the form of the headers and their timestamp; the body, of which at most
// [MaxBody] is read; its signature; its form; the nonces that this process has
// seen; the rate; ReserveNonce; Notify. The checks before the rate cost a little
// processor time and bounded memory, so that a sender who does not know the
// secret, or who replays a signed request, cannot use up the rate of the others.
// The checks after it may cost a round trip. Without a secret the rate is checked
// before the body.
func NewHandler(o Options) http.Handler {
	o.Rate = cmp.Or(o.Rate, defaultRate)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(string, string) {}
	}
	if o.Poll == nil {
		o.Poll = func() {}
	}
	if o.Secrets == nil {
		o.Secrets = func(string, bool) []string { return nil }
	}
	h := &handler{
		Options: o,
		nonces:  recent[struct{}]{most: maxNonces, keep: reserveFor},
		hooks:   recent[*rate.Limiter]{most: maxRepeats, keep: repeatBurst * repeatEvery},
	}
	mux := http.NewServeMux()
	mux.Handle(Path, h.serve(Path, MaxBody, h.trigger))
	mux.Handle(EventHookPath, h.serve(EventHookPath, maxEventHook, h.eventHook))
	mux.Handle(HTTPLogPath, h.serve(HTTPLogPath, maxHTTPLog, h.httpLog))
	return mux
}

// request is a request whose method and length are right.
type request struct {
	*http.Request
	w       http.ResponseWriter
	limiter *rate.Limiter // of its path
	// body reads no more of Body than the path accepts. It does not replace Body: before it sends an answer,
	// the server would read the rest of any other reader, which a sender may hold back.
	body io.Reader
	// secrets are those that may have signed the request. There are none only if the request need not be
	// signed and is within the rate.
	secrets []string
}

func (r *request) signed() bool { return len(r.secrets) > 0 }

// refusal is a status and a reason. The reason repeats nothing that was sent, so
// it can be logged.
type refusal struct {
	status int
	reason string
	// retryAfter is when the same request can succeed, where only waiting is needed; else 0.
	retryAfter time.Duration
}

func (r *refusal) Error() string { return r.reason }

var (
	errMethod    = &refusal{status: http.StatusMethodNotAllowed, reason: "only POST is allowed here"}
	errTooLarge  = &refusal{status: http.StatusRequestEntityTooLarge, reason: "body is too large"}
	errRate      = &refusal{http.StatusTooManyRequests, "too many requests", time.Second} // the burst lasts a second
	errUnread    = &refusal{status: http.StatusBadRequest, reason: "body could not be read"}
	errSlow      = &refusal{status: http.StatusRequestTimeout, reason: "body took too long"}
	errNoSecret  = &refusal{status: http.StatusUnauthorized, reason: "no secret is configured"}
	errHeaders   = &refusal{status: http.StatusUnauthorized, reason: "webhook-id, webhook-timestamp or webhook-signature is missing or malformed"}
	errTimestamp = &refusal{status: http.StatusUnauthorized, reason: "webhook-timestamp is too far from the relay's clock"}
	errSignature = &refusal{status: http.StatusUnauthorized, reason: "signature does not match"}
	errReplay    = &refusal{status: http.StatusConflict, reason: "webhook-id was used before"}
	errNotStored = &refusal{http.StatusServiceUnavailable, "trigger could not be stored", time.Second} // the plugin signs each attempt anew
)

// serve returns the handler of a path, which accepts bodies of at most size bytes. check checks
// what differs between the paths, and returns the announced ids.
func (h *handler) serve(path string, size int64, check func(*request) ([]string, error)) http.Handler {
	limiter := rate.NewLimiter(rate.Limit(h.Rate), h.Rate)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids, err := h.check(&request{Request: r, w: w, limiter: limiter}, path, size, check)
		if err == nil {
			err = split(ids, func(ids []string) error { return h.Notify(r.Context(), ids) })
			if err != nil {
				h.failed(r.Context(), path, err)
				err = errNotStored
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if err == nil {
			h.Observe(path, Accepted)
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "{}\n")
			return
		}
		refused, ok := errors.AsType[*refusal](err)
		if !ok {
			refused = &refusal{status: http.StatusBadRequest, reason: err.Error()}
		}
		h.refuse(w, r, path, refused)
	})
}

// Outcomes of a trigger.
const (
	Accepted     = "accepted"
	Unauthorized = "unauthorized" // the signature, the time or the password is wrong
)

// outcomeOf returns the outcome of a trigger that was refused with a status.
func outcomeOf(status int) string {
	return cmp.Or(map[int]string{
		http.StatusUnauthorized:          Unauthorized,
		http.StatusMethodNotAllowed:      "method",
		http.StatusRequestEntityTooLarge: "too_large",
		http.StatusTooManyRequests:       "rate",
		http.StatusConflict:              "replayed",
		http.StatusRequestTimeout:        "slow",
		http.StatusServiceUnavailable:    "not_stored",
	}[status], "malformed")
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, path string, refused *refusal) {
	h.Observe(path, outcomeOf(refused.status))
	if n := h.refusals.count(h.Now()); n > 0 {
		h.Logger.WarnContext(r.Context(), "triggers refused", "count", n, "path", path,
			"status", refused.status, "reason", refused.reason, "remote", r.RemoteAddr)
	}
	if refused.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	if refused.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(refused.retryAfter/time.Second)))
	}
	w.WriteHeader(refused.status)
	_ = json.MarshalWrite(w, answer{Reason: refused.reason})
}

func (h *handler) failed(ctx context.Context, path string, err error) {
	if n := h.failures.count(h.Now()); n > 0 {
		h.Logger.ErrorContext(ctx, "triggers could not be stored", "count", n, "path", path, "err", err)
	}
}

// check checks the head of a request to path, and then calls rest. The body may still turn out
// to be larger than size, in bytes.
func (h *handler) check(r *request, path string, size int64, rest func(*request) ([]string, error)) ([]string, error) {
	switch {
	case r.Method != http.MethodPost:
		return nil, errMethod
	case r.ContentLength > size:
		return nil, errTooLarge
	}
	r.secrets = h.Secrets(path, false)
	switch {
	case r.signed():
	case !h.Unsigned:
		return nil, errNoSecret
	case !r.limiter.AllowN(h.Now(), 1):
		return nil, errRate
	}
	r.body = http.MaxBytesReader(r.w, r.Body, size)
	return rest(r)
}

// trigger checks a request to Path.
func (h *handler) trigger(r *request) ([]string, error) {
	if r.signed() {
		if err := h.checkHeaders(r.Header); err != nil {
			return nil, err
		}
	}
	done := h.bodies.begin(r.w)
	body, err := io.ReadAll(r.body)
	done() // what follows may wait for the ledger
	if err != nil {
		return nil, readError(err)
	}
	if r.signed() && !h.fits(Path, r.secrets, func(list []string) bool { return verified(list, body, r.Header) }) {
		return nil, errSignature
	}
	b, err := parseBody(body)
	if err != nil {
		return nil, err
	}
	if r.signed() {
		if err := h.reserve(r.Context(), r.Header.Get(standardwebhooks.HeaderWebhookID), r.limiter); err != nil {
			return nil, err
		}
	}
	return b.RequestIDs, nil
}

// fits reports whether one of the secrets of a path is right. If none is, it has them read
// again: they may have been rotated.
func (h *handler) fits(path string, secrets []string, right func([]string) bool) bool {
	return right(secrets) || right(h.Secrets(path, true))
}

// reserve reserves a webhook id, first in this process and then by ReserveNonce,
// and counts the request against the rate in between. An id that was not passed
// to ReserveNonce stays free.
func (h *handler) reserve(ctx context.Context, id string, limiter *rate.Limiter) error {
	if _, used := h.nonces.loadOrStore(h.Now(), id, struct{}{}); used {
		return errReplay
	}
	if err := h.limit(limiter); err != nil {
		h.nonces.delete(id)
		return err
	}
	if h.ReserveNonce == nil {
		return nil
	}
	fresh, err := h.ReserveNonce(ctx, id, reserveFor)
	switch {
	case err != nil:
		h.nonces.delete(id)
		h.failed(ctx, Path, err)
		return errNotStored
	case !fresh:
		return errReplay
	}
	return nil
}

// limit counts a signed request against the rate. It refuses one that exceeds the rate, and
// polls all the same: the request shows that there is something to read, and its sender may
// not come again.
func (h *handler) limit(limiter *rate.Limiter) error {
	if limiter.AllowN(h.Now(), 1) {
		return nil
	}
	h.Poll()
	return errRate
}

// readError returns the refusal for an error of reading a body.
func readError(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow // not necessarily the sender's fault: it may try again
	}
	return errUnread
}

// checkHeaders refuses headers that cannot be right before they cost anything.
func (h *handler) checkHeaders(header http.Header) error {
	for _, name := range []string{
		standardwebhooks.HeaderWebhookID, standardwebhooks.HeaderWebhookTimestamp, standardwebhooks.HeaderWebhookSignature,
	} {
		if len(header.Values(name)) != 1 {
			return errHeaders
		}
	}
	at, err := strconv.ParseInt(header.Get(standardwebhooks.HeaderWebhookTimestamp), 10, 64)
	// The id becomes part of a key in the ledger, and a dot would separate the parts of the signed text.
	if err != nil || !isToken(header.Get(standardwebhooks.HeaderWebhookID), 128, "_-") ||
		len(header.Get(standardwebhooks.HeaderWebhookSignature)) > maxSignatures {
		return errHeaders
	}
	// Compared in seconds: the difference to a hostile timestamp overflows a duration.
	now, tolerance := h.Now().Unix(), int64(Tolerance/time.Second)
	if at < now-tolerance || at > now+tolerance {
		return errTimestamp
	}
	return nil
}

// maxSignatures is the size of ten signatures, in bytes. It bounds the header.
const maxSignatures = 10 * 48

// verified reports whether one of the secrets signed the body. It does not check
// the timestamp: checkHeaders has compared it with the handler's own clock.
func verified(secrets []string, body []byte, header http.Header) bool {
	for _, secret := range secrets {
		if CheckSecret(secret) != nil {
			continue // with an empty key anyone could have signed the body
		}
		webhook, err := standardwebhooks.NewWebhook(secret)
		if err == nil && webhook.VerifyIgnoringTimestamp(body, header) == nil {
			return true
		}
	}
	return false
}
