package awstest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Service is what an emulated service has beside its operations.
type Service struct {
	*Store
	Troubles
	Credentials
}

// Put answers a call that puts events, with its fault. handle takes the events and
// returns the answer.
func (s *Service) Put(w http.ResponseWriter, r *http.Request, protocol Protocol, handle func(*Plan) ([]byte, *Error)) {
	p := s.plan(true)
	resets, loses, garbles, code := p.Down || p.hit(p.Reset), p.hit(p.LoseAnswer), p.hit(p.Garbage), p.draw(p.Calls)
	s.Count(func(c *Counts) {
		if resets {
			c.Lost++
		} else {
			c.Calls++
		}
	})
	wait(r, p.Delay)
	if resets {
		reset(w)
	}
	var answer []byte
	e := Refuse(code, "fault on request")
	if code == "" {
		answer, e = handle(&p)
	}
	switch {
	case e != nil:
		s.Count(func(c *Counts) { c.Refused++ })
		s.Fail(w, protocol, e)
	case loses:
		s.Count(func(c *Counts) { c.Lost++ })
		panic(http.ErrAbortHandler)
	case garbles:
		protocol.writeText(w, http.StatusOK, []byte(protocol.Garbage))
	default:
		protocol.writeText(w, http.StatusOK, answer)
	}
}

// ReadBody reads a body of at most so many bytes. One that is larger is read to its end, within
// reason, so that the client sees the answer. The caller calls done when it needs the body no longer.
func ReadBody(r *http.Request, most int64) (body []byte, done func(), e *Error) {
	b, _ := bodies.Get().(*bytes.Buffer)
	b.Reset()
	n, err := b.ReadFrom(io.LimitReader(r.Body, most+1))
	switch {
	case err != nil:
		e = Refuse("SerializationException", "the body could not be read")
	case n > most:
		_, _ = io.CopyN(io.Discard, r.Body, 32<<20) // the answer is the same whatever is left
		e = &Error{http.StatusRequestEntityTooLarge, "ValidationException", fmt.Sprintf("the request is larger than %d bytes", most)}
	}
	return b.Bytes(), func() { bodies.Put(b) }, e
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Fail answers a call with its refusal, and counts it.
func (s *Service) Fail(w http.ResponseWriter, protocol Protocol, e *Error) {
	s.Count(func(c *Counts) {
		c.Codes[e.Code]++
		if e == Throttled {
			c.Throttled++
		}
	})
	protocol.writeError(w, e)
}

// Throttled is the refusal of a call beyond a quota.
var Throttled = Refuse("ThrottlingException", "Rate exceeded")

// Quota is how many calls are taken in any second. It is safe for concurrent use.
type Quota struct {
	PerSecond int // negative for any number

	mu    sync.Mutex
	taken []time.Time
}

// Exceeded counts a call, and reports whether it is one too many.
func (q *Quota) Exceeded(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.PerSecond < 0 {
		return false
	}
	q.taken = slices.DeleteFunc(q.taken, func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(q.taken) >= q.PerSecond {
		return true
	}
	q.taken = append(q.taken, now)
	return false
}

// Signature is what a request says about its signature (Signature Version 4).
type Signature struct {
	Credential Credential
	Date       string // YYYYMMDD
	Headers    string // that are signed, with semicolons between
}

// An access key id has no slash, but one that has is unknown rather than malformed.
var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=(.+)/([^/]+)/([^/]+)/([^/]+)/aws4_request, *SignedHeaders=([^,]+), *Signature=[0-9a-f]+$`)

// Signed returns what a request says about its signature, which must be for a service in
// a Region and by a key that is known. It computes nothing.
func (c *Credentials) Signed(r *http.Request, service, region string, now time.Time) (Signature, *Error) {
	header := r.Header.Get("Authorization")
	m := authorization.FindStringSubmatch(header)
	switch {
	case header == "":
		return Signature{}, Refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	case m == nil:
		return Signature{}, Refuse("IncompleteSignatureException", "Authorization header requires AWS4-HMAC-SHA256, 'Credential' with 5 elements, 'SignedHeaders' and 'Signature'.")
	case m[4] != service:
		return Signature{}, Refuse("InvalidSignatureException", "Credential should be scoped to correct service: '"+service+"'.")
	case m[3] != region:
		return Signature{}, Refuse("InvalidSignatureException", "Credential should be scoped to a valid region.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(k Credential) bool { return k.AccessKeyID == m[1] })
	switch {
	case i < 0, c.list[i].SessionToken != r.Header.Get("X-Amz-Security-Token"):
		return Signature{}, Refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case !c.list[i].Expires.IsZero() && !now.Before(c.list[i].Expires):
		return Signature{}, Refuse("ExpiredTokenException", "The security token included in the request is expired")
	}
	return Signature{c.list[i], m[2], m[5]}, nil
}
