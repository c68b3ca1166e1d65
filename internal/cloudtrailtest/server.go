// Package cloudtrailtest is an emulated AWS CloudTrail Lake: PutAuditEvents with
// its signatures, limits, errors and quota, and the queries that verification
// needs. It is written from AWS's published model, shares no code with the client, and misbehaves on request, so that
// tests, the demo and the local stack meet the service at its worst.
//
// Where AWS's documentation leaves a limit open, the server takes the stricter
// reading.
package cloudtrailtest

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// What a server knows unless its options say otherwise. The key is the one of
// AWS's own examples, and opens nothing.
const (
	AccessKeyID     = "AKIDEXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	ChannelARN      = "arn:aws:cloudtrail:eu-central-1:111122223333:channel/11111111-2222-4333-8444-555555555555"
	EventDataStore  = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
)

// CallsPerSecond is AWS's quota for PutAuditEvents.
const CallsPerSecond = 100

// Options shape a Server. The zero value is the strict service.
type Options struct {
	// Channels are the ARNs of the channels that exist; [ChannelARN] if empty.
	Channels []string
	// Region that requests must be signed for; that of the first channel if empty.
	Region string
	// Credentials that are known; [AccessKeyID] with [SecretAccessKey] if empty.
	Credentials []Credential
	// ExternalID, if set, must come with each call, else ChannelInsufficientPermission.
	ExternalID string
	// EventSource, if set, is the only one that is taken; any other is InvalidEventSource.
	EventSource string
	// AllowEmptyType takes "" as userIdentity.type. AWS does not say whether it does.
	AllowEmptyType bool
	// Unsigned turns the check of signatures off.
	Unsigned bool
	// Lean reads ids only and believes the rest, for benchmarks of what calls the
	// server. It implies KeepCounts.
	Lean bool
	// CallsPerSecond is the quota: 0 for AWS's, negative for none.
	CallsPerSecond int
	// Keep says how much is remembered of accepted events.
	Keep Keep
	// ErrorsIn says where error answers carry their code.
	ErrorsIn ErrorsIn
	// Faults from the start; SetFaults changes them.
	Faults Faults
	// EventDataStore is the id that queries name; [EventDataStore] if empty.
	EventDataStore string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Server is an http.Handler that emulates the service. It is safe for concurrent use.
type Server struct {
	o        Options
	accounts map[string]string // channel ARN → account that owns it
	store    *store
	queries  queries
	calls    sync.Pool // of *call

	authMu      sync.Mutex
	credentials []Credential
	signer      *v4.Signer

	faultMu sync.Mutex
	faults  Faults
	script  []Fault
	drawn   uint64 // calls for which dice were drawn

	quotaMu sync.Mutex
	window  []time.Time // of the last calls within the quota, as a ring
	oldest  int
}

// New returns a server. A channel whose ARN is malformed is one that does not exist.
func New(o Options) *Server {
	if len(o.Channels) == 0 {
		o.Channels = []string{ChannelARN}
	}
	if len(o.Credentials) == 0 {
		o.Credentials = []Credential{{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey}}
	}
	if o.EventDataStore == "" {
		o.EventDataStore = EventDataStore
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lean {
		o.Keep = KeepCounts
	}
	if o.CallsPerSecond == 0 {
		o.CallsPerSecond = CallsPerSecond
	}
	s := &Server{
		o: o, accounts: map[string]string{}, store: newStore(o.Keep, rand.Uint32()),
		credentials: slices.Clone(o.Credentials), signer: v4.NewSigner(),
		window: make([]time.Time, max(o.CallsPerSecond, 0)),
	}
	for _, arn := range o.Channels {
		if region, account, ok := parseChannel(arn); ok {
			s.accounts[arn] = account
			if s.o.Region == "" {
				s.o.Region = region
			}
		}
	}
	s.SetFaults(o.Faults)
	return s
}

// SetCredentials replaces the credentials that are known, as a rotation does.
func (s *Server) SetCredentials(c ...Credential) {
	s.authMu.Lock()
	defer s.authMu.Unlock()
	s.credentials = slices.Clone(c)
}

// parseChannel reads arn:aws:cloudtrail:<region>:<account>:channel/<id>.
func parseChannel(arn string) (region, account string, ok bool) {
	p := strings.Split(arn, ":")
	if len(arn) > maxChannelARN || len(p) != 6 || p[0] != "arn" || !strings.HasPrefix(p[1], "aws") || p[2] != "cloudtrail" || p[3] == "" {
		return "", "", false
	}
	id, ok := strings.CutPrefix(p[5], "channel/")
	if !ok || id == "" || !each(id, func(c byte) bool { return alphanumeric(c) || c == '-' }) ||
		len(p[4]) != 12 || !each(p[4], digit) {
		return "", "", false
	}
	return p[3], p[4], true
}

func each(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func alphanumeric(c byte) bool {
	return digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// ServeHTTP answers the two APIs.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/PutAuditEvents":
		s.putAuditEvents(w, r)
	case r.Method == http.MethodPost && r.URL.Path == "/" && r.Header.Get("X-Amz-Target") != "":
		s.query(w, r)
	default:
		s.writeError(w, dataProtocol, refuse("UnknownOperationException", "there is no such operation"))
	}
}

// throttled counts a call against the quota: so many in any second.
func (s *Server) throttled() bool {
	if len(s.window) == 0 {
		return false
	}
	now := s.o.Now()
	s.quotaMu.Lock()
	defer s.quotaMu.Unlock()
	if first := s.window[s.oldest]; !first.IsZero() && now.Sub(first) < time.Second {
		return true
	}
	s.window[s.oldest] = now
	s.oldest = (s.oldest + 1) % len(s.window)
	return false
}
