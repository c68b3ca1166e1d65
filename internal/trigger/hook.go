package trigger

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Kong signs its event hooks with it
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// maxEventHook is the largest event hook that is read, in bytes. It holds the
// entity that changed, which can be a certificate or a long specification.
const maxEventHook = 1 << 20

// eventHook checks a request to EventHookPath: one of Kong's event hooks, for a
// control plane that has no proxy to run the plugin on. Kong sends it before the
// audit log has the entry, and without the request's id, so it only asks for a
// poll. The body can hold secrets: it is hashed while it is read and not kept.
//
// Kong signs neither an id nor a time. A captured hook stays valid, so the same
// one is accepted a few times at once and then once in a while; see allowHook.
//
// Kong documents x-kong-signature as sha1=<hex of HMAC-SHA1>, and HMAC-SHA256
// from 3.14 on.
func (h *handler) eventHook(r *request) ([]string, error) {
	newHash, want := kongSignature(r.Header)
	if r.signed() && newHash == nil {
		return nil, errHookSignature
	}
	var (
		macs    []hash.Hash
		writers []io.Writer
	)
	for _, secret := range r.secrets {
		if secret != "" {
			mac := hmac.New(newHash, []byte(secret))
			macs, writers = append(macs, mac), append(writers, mac)
		}
	}
	defer h.bodies.begin(r.w)()
	if _, err := io.Copy(io.MultiWriter(writers...), r.body); err != nil {
		return nil, readError(err)
	}
	if !r.signed() {
		return nil, nil
	}
	for _, mac := range macs {
		if sum := mac.Sum(nil); hmac.Equal(sum, want) {
			if !h.allowHook(string(sum)) {
				return nil, errHookRepeated
			}
			return nil, h.limit(r.limiter)
		}
	}
	h.Secrets(EventHookPath, true) // for the next hook: the body of this one has been read, and was not kept
	return nil, errSignature
}

var (
	errHookSignature = &refusal{status: http.StatusUnauthorized, reason: "x-kong-signature is missing or malformed"}
	errHookRepeated  = &refusal{http.StatusTooManyRequests, "the same event hook came too often", repeatEvery}
)

// kongSignature reads x-kong-signature. It returns a nil function if the header
// is not a signature.
func kongSignature(header http.Header) (func() hash.Hash, []byte) {
	values := header.Values("x-kong-signature")
	if len(values) != 1 {
		return nil, nil
	}
	name, text, _ := strings.Cut(values[0], "=")
	newHash := map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New}[name]
	if newHash == nil || len(text) != 2*newHash().Size() {
		return nil, nil
	}
	sum, err := hex.DecodeString(text)
	if err != nil {
		return nil, nil
	}
	return newHash, sum
}

const (
	repeatBurst = 5
	repeatEvery = time.Minute
	// maxRepeats bounds the number of hooks that are remembered.
	maxRepeats = 10_000
)

// allowHook reports whether the event hook with this digest may cause another poll. Two
// true hooks can be equal (a custom handler may send a constant text), so the second
// one is not refused outright; but whoever replays a captured one gets repeatBurst polls
// and then one in repeatEvery.
func (h *handler) allowHook(digest string) bool {
	now := h.Now()
	// A limiter that is forgotten has recovered by then.
	limiter, _ := h.hooks.loadOrStore(now, digest, rate.NewLimiter(rate.Every(repeatEvery), repeatBurst))
	return limiter.AllowN(now, 1)
}
