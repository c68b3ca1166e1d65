// Package cloudwatchtest is an emulated CloudWatch Logs: PutLogEvents with its
// limits, and what reads the events back. It is written from AWS's published model,
// shares no code with the client, and misbehaves on request, so that tests, the demo
// and the local stack meet the service at its worst.
//
// Where AWS's documentation leaves a limit open, the server takes the stricter
// reading.
package cloudwatchtest

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awstest"
)

// Faults are what goes wrong with calls.
type Faults = awstest.Faults

// What a server knows unless its options say otherwise. The key is the one of
// AWS's own examples, and opens nothing.
const (
	AccessKeyID     = "AKIDEXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	Region          = "eu-central-1"
	Group           = "/kong/audit"
)

// ReadsPerSecond is AWS's quota for FilterLogEvents.
const ReadsPerSecond = 5

// Options shape a Server. The zero value is the strict service, with a log group
// that has no stream yet.
type Options struct {
	Group     string   // the only log group; [Group] if empty
	Missing   bool     // the log group does not exist
	Streams   []string // that exist; CreateLogStream adds to them
	Retention int      // of the group in days; 0 keeps events without end
	// VisibleAfter is how long readers do not see an event that was taken.
	VisibleAfter time.Duration
	// ReadsPerSecond is the quota of FilterLogEvents: 0 for AWS's, negative for none.
	ReadsPerSecond int
	// Lean believes what it is sent, for benchmarks of what calls the server. It
	// keeps nothing but how often each UID came.
	Lean bool
	// Digest keeps of each event only what identifies it: readers get an event that
	// has these fields alone.
	Digest bool
	// Faults from the start; SetFaults changes them.
	Faults Faults
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Server is an http.Handler that emulates the service. It is safe for concurrent use.
type Server struct {
	awstest.Service

	relayPage atomic.Pointer[string]
	reads     awstest.Quota

	mu sync.Mutex
	o  Options
}

// New returns a server. It knows the key [AccessKeyID].
func New(o Options) *Server {
	if o.Group == "" {
		o.Group = Group
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Streams = slices.Clone(o.Streams)
	s := &Server{
		Service: awstest.Service{Store: awstest.NewStore(o.Lean)}, o: o,
		reads: awstest.Quota{PerSecond: cmp.Or(o.ReadsPerSecond, ReadsPerSecond)},
	}
	s.SetCredentials(awstest.Credential{AccessKeyID: AccessKeyID})
	s.SetFaults(o.Faults)
	return s
}

// Update changes what the server is while it runs.
func (s *Server) Update(change func(*Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.o)
}

// Streams returns the names of the log streams.
func (s *Server) Streams() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.o.Streams)
}

var protocol = awstest.Protocol{ContentType: "application/x-amz-json-1.1", Namespace: "com.amazonaws.logs", Garbage: "<html><h1>"}

func invalid(message string) *awstest.Error {
	return awstest.Refuse("InvalidParameterException", message)
}

// maxBody bounds what is read of a request: messages are escaped in it.
const maxBody = 8 << 20

const targetPrefix = "Logs_20140328."

// Serves reports whether a request is for this service, or for its page.
func Serves(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
}

// ServeHTTP answers the API and the page.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	if !ok || r.Method != http.MethodPost {
		s.page(w, r)
		return
	}
	body, done, e := awstest.ReadBody(r, maxBody)
	defer done()
	if e == nil { // The signature is made by AWS's own client, so it is not computed again.
		_, e = s.Signed(r, "logs", Region, s.o.Now())
	}
	handle := map[string]func([]byte) (any, *awstest.Error){
		"CreateLogStream": s.createLogStream, "DescribeLogGroups": s.describeLogGroups, "FilterLogEvents": s.filterLogEvents,
	}[operation]
	var answer any
	switch {
	case e != nil:
	case operation == "PutLogEvents":
		s.Put(w, r, protocol, func(p *awstest.Plan) ([]byte, *awstest.Error) { return s.putLogEvents(body, p) })
		return
	case handle == nil:
		e = awstest.Refuse("UnknownOperationException", "there is no such operation")
	default:
		answer, e = handle(body)
	}
	if e != nil {
		s.Fail(w, protocol, e)
		return
	}
	protocol.Write(w, http.StatusOK, answer)
}

func decode(body []byte, in any) *awstest.Error {
	if err := json.Unmarshal(body, in); err != nil {
		return errForm
	}
	return nil
}

var errForm = awstest.Refuse("SerializationException", "the body is not a JSON object of the expected form")

// group checks that a call names the log group that there is, and streams of it. The caller holds the lock.
func (s *Server) group(name string, streams ...string) *awstest.Error {
	if s.o.Missing || name != s.o.Group {
		return awstest.Refuse("ResourceNotFoundException", "The specified log group does not exist.")
	}
	if slices.ContainsFunc(streams, func(name string) bool { return !slices.Contains(s.o.Streams, name) }) {
		return awstest.Refuse("ResourceNotFoundException", "The specified log stream does not exist.")
	}
	return nil
}

func (s *Server) createLogStream(body []byte) (any, *awstest.Error) {
	var in struct {
		Group  string `json:"logGroupName"`
		Stream string `json:"logStreamName"`
	}
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.group(in.Group); e != nil {
		return nil, e
	}
	if in.Stream == "" || len(in.Stream) > 512 || strings.ContainsAny(in.Stream, ":*") {
		return nil, invalid("1 validation error detected: Value at 'logStreamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [^:*]*")
	}
	if slices.Contains(s.o.Streams, in.Stream) {
		return nil, awstest.Refuse("ResourceAlreadyExistsException", "The specified log stream already exists")
	}
	s.o.Streams = append(s.o.Streams, in.Stream)
	return map[string]string{}, nil
}

// describeLogGroups shows, before the group itself, one whose name begins with it.
func (s *Server) describeLogGroups(body []byte) (any, *awstest.Error) {
	var in struct {
		Prefix string `json:"logGroupNamePrefix"`
		Token  string `json:"nextToken"`
	}
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Missing || !strings.HasPrefix(s.o.Group, in.Prefix) {
		return map[string]any{"logGroups": []any{}}, nil
	}
	if in.Token == "" {
		return map[string]any{"logGroups": []any{map[string]any{"logGroupName": s.o.Group + "-other", "retentionInDays": 1}}, "nextToken": "2"}, nil
	}
	group := map[string]any{"logGroupName": s.o.Group, "logGroupClass": "STANDARD", "deletionProtectionEnabled": false}
	if s.o.Retention > 0 {
		group["retentionInDays"] = s.o.Retention
	}
	return map[string]any{"logGroups": []any{group}}, nil
}

// identity is what identifies an event in a message, which is JSON of either format.
type identity struct {
	UID       string `json:"UID"`
	EventTime string `json:"eventTime"`
	Metadata  struct {
		UID string `json:"uid"`
	} `json:"metadata"`
}

// lax takes whatever Kong may have recorded inside a payload.
var lax = []json.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

func identify(message []byte) (id identity) {
	if json.Unmarshal(message, &id, lax...) != nil {
		return identity{}
	}
	return id
}

func (id *identity) uid() string { return cmp.Or(id.UID, id.Metadata.UID) }
