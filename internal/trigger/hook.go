package trigger

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what Kong signs its event hooks with
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/time/rate"
)

// maxEventHook is the largest event hook that is read, in bytes. It holds the
// entity that changed, which can be a certificate or a long specification.
const maxEventHook = 1 << 20

// eventHook checks a request to EventHookPath: Kong's own event hooks, for a
// control plane that has no proxy to run the plugin on. It is a doorbell: Kong
// sends it before the row exists, and without the request's id. The body can
// hold secrets, so it runs through the HMAC and is kept nowhere. As with
// triggers, only what is signed counts for the rate. Kong signs neither an id
// nor a time: one that was caught and is sent again counts, too, and makes the
// relay look as the true one would.
//
// Kong's documentation gives x-kong-signature as sha1=<hex of HMAC-SHA1>, and
// HMAC-SHA256 from 3.14 on.
func (h *handler) eventHook(w http.ResponseWriter, r *http.Request, limiter *rate.Limiter) ([]string, error) {
	secrets, err := h.begin(r, maxEventHook, h.EventHookSecrets)
	if err != nil {
		return nil, err
	}
	signed := len(secrets) > 0
	var (
		newHash func() hash.Hash
		want    []byte
	)
	if signed {
		if newHash, want = kongSignature(r.Header); newHash == nil {
			return nil, errHookSignature
		}
	} else if !limiter.AllowN(h.Now(), 1) {
		return nil, errRate
	}
	var macs []hash.Hash
	var sinks []io.Writer
	for _, secret := range secrets {
		if secret != "" {
			mac := hmac.New(newHash, []byte(secret))
			macs, sinks = append(macs, mac), append(sinks, mac)
		}
	}
	c := http.NewResponseController(w)
	h.bodies.begin(c)
	defer h.bodies.end(c)
	if _, err := io.Copy(io.MultiWriter(sinks...), http.MaxBytesReader(w, r.Body, maxEventHook)); err != nil {
		return nil, readError(err)
	}
	if !signed {
		return nil, nil
	}
	if !slices.ContainsFunc(macs, func(mac hash.Hash) bool { return hmac.Equal(mac.Sum(nil), want) }) {
		return nil, errSignature
	}
	if !limiter.AllowN(h.Now(), 1) {
		return nil, errRate
	}
	return nil, nil
}

var errHookSignature = &refusal{http.StatusUnauthorized, "x-kong-signature is missing or malformed"}

// kongSignature reads x-kong-signature. It returns no hash if that is not one.
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
