// Package cloudtrailtest is an emulated AWS CloudTrail Lake: PutAuditEvents with
// its signatures, limits, errors and quota, and the queries that verification
// needs. It is written from AWS's published model and shares no code with the
// client. It misbehaves on request, so that tests, the demo and the local stack
// meet the service at its worst.
//
// Where AWS's documentation leaves a limit open, the server takes the stricter
// reading.
package cloudtrailtest

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// Faults say what goes wrong with calls.
type Faults = awstest.Faults

// The credentials, the channel and the event data store that every server knows. The key is
// that of AWS's own examples, and is of no use elsewhere.
const (
	AccessKeyID     = "AKIDEXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	ChannelARN      = "arn:aws:cloudtrail:" + region + ":" + account + ":channel/11111111-2222-4333-8444-555555555555"
	EventDataStore  = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
)

const (
	region  = "eu-central-1"
	account = "111122223333" // the account that owns the channel
)

// CallsPerSecond is AWS's quota for PutAuditEvents.
const CallsPerSecond = 100

// Options shape a Server. The zero value is the strict service, whose only channel is
// [ChannelARN].
type Options struct {
	// ExternalID, if set, is the external id that each call must have. Others are refused
	// with ChannelInsufficientPermission.
	ExternalID string
	// EventSource, if set, is the only eventSource that is accepted. Others are refused with
	// InvalidEventSource.
	EventSource string
	// Unsigned turns the check of signatures off.
	Unsigned bool
	// Lean is for benchmarks of what calls the server: it checks no eventData, except that
	// it refuses "{}", and keeps nothing of an event but how often its id was accepted.
	Lean bool
	// Digest keeps no eventData.
	Digest bool
	// CallsPerSecond is the quota: 0 for AWS's, negative for none.
	CallsPerSecond int
	// Faults are those from the start. SetFaults changes them.
	Faults Faults
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Server is an http.Handler that emulates the service. It is safe for concurrent use.
type Server struct {
	awstest.Service

	o      Options
	boot   uint32 // makes the event ids of two servers differ
	signer *v4.Signer
	quota  awstest.Quota

	mu      sync.Mutex
	queries map[string]*queryRun // by id
}

// New returns a server. It knows the key [AccessKeyID].
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		Service: awstest.Service{Store: awstest.NewStore(o.Lean)}, o: o, boot: rand.Uint32(), signer: v4.NewSigner(),
		queries: map[string]*queryRun{},
		quota:   awstest.Quota{PerSecond: cmp.Or(o.CallsPerSecond, CallsPerSecond)},
	}
	s.SetCredentials(awstest.Credential{AccessKeyID: AccessKeyID, SecretAccessKey: SecretAccessKey})
	s.SetFaults(o.Faults)
	return s
}

// ServeHTTP answers the two APIs.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/PutAuditEvents":
		s.putAuditEvents(w, r)
	case r.Method == http.MethodPost && r.URL.Path == "/" && r.Header.Get("X-Amz-Target") != "":
		s.query(w, r)
	default:
		s.Fail(w, dataProtocol, awstest.Refuse("UnknownOperationException", "there is no such operation"))
	}
}

var (
	dataProtocol  = awstest.Protocol{ContentType: "application/json", Namespace: "com.amazonaws.cloudtraildata", REST: true, Garbage: `{"successful":[{"id":"<html><h1>`}
	queryProtocol = awstest.Protocol{ContentType: "application/x-amz-json-1.1", Namespace: "com.amazonaws.cloudtrail.v20131101"}
)

// invalid returns the error with which AWS refuses what breaks a constraint of its model.
func invalid(message string) *awstest.Error {
	return awstest.Refuse("ValidationException", "1 validation error detected: "+message)
}
