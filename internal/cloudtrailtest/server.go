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
	"strings"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

type (
	// Fault is what goes wrong with one call that puts events.
	Fault = awstest.Fault
	// Faults go on until they are changed.
	Faults = awstest.Faults
	// Event is one that was taken.
	Event = awstest.Event
	// Counts are totals since the server was made.
	Counts = awstest.Counts
	// Credential is an access key that the server knows.
	Credential = awstest.Credential
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
	// server. Of events it keeps how often each id was accepted.
	Lean bool
	// Digest keeps no eventData.
	Digest bool
	// CallsPerSecond is the quota: 0 for AWS's, negative for none.
	CallsPerSecond int
	// ErrorsIn says where error answers carry their code.
	ErrorsIn awstest.ErrorsIn
	// Faults from the start; SetFaults changes them.
	Faults Faults
	// EventDataStore is the id that queries name; [EventDataStore] if empty.
	EventDataStore string
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Server is an http.Handler that emulates the service. It is safe for concurrent use.
type Server struct {
	*awstest.Store
	awstest.Troubles
	awstest.Credentials

	o        Options
	accounts map[string]string // channel ARN → account that owns it
	boot     uint32            // makes the event ids of two servers differ
	queries  queries
	calls    sync.Pool // of *call
	signer   *v4.Signer

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
	if o.CallsPerSecond == 0 {
		o.CallsPerSecond = CallsPerSecond
	}
	s := &Server{
		Store: awstest.NewStore(o.Lean), o: o, accounts: map[string]string{}, boot: rand.Uint32(), signer: v4.NewSigner(),
		window: make([]time.Time, max(o.CallsPerSecond, 0)),
	}
	s.SetCredentials(o.Credentials...)
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
		dataProtocol.WriteError(w, awstest.Refuse("UnknownOperationException", "there is no such operation"), s.o.ErrorsIn)
	}
}

var (
	dataProtocol  = awstest.Protocol{ContentType: "application/json", Namespace: "com.amazonaws.cloudtraildata"}
	queryProtocol = awstest.Protocol{ContentType: "application/x-amz-json-1.1", Namespace: "com.amazonaws.cloudtrail.v20131101"}
)

// invalid is how AWS refuses what breaks a constraint of its model.
func invalid(message string) *awstest.Error {
	return awstest.Refuse("ValidationException", "1 validation error detected: "+message)
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
