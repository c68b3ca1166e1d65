package cloudwatch_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/cloudwatch"
)

// logs is a stand-in for CloudWatch Logs. It speaks JSON 1.1, keeps the limits of
// PutLogEvents as AWS documents them, and misbehaves on request.
type logs struct {
	t     *testing.T
	now   time.Time
	group bool // the group exists

	mu        sync.Mutex
	stream    bool          // the stream exists
	retention time.Duration // of the group
	kept      []logEvent
	calls     []call
	// fault, if set, may answer the nth call (from 0) of an operation instead.
	fault func(operation string, n int, body string) (status int, answer string)
	count map[string]int
}

type logEvent struct {
	Message   string `json:"message"`
	Timestamp int64  `json:"timestamp"`
}

type call struct{ events, bytes int }

func (l *logs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "Logs_20140328.")
	n := l.count[operation]
	l.count[operation]++
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if l.fault != nil {
		if status, answer := l.fault(operation, n, string(body)); status != 0 {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
			return
		}
	}
	var in struct {
		LogGroupName, LogStreamName string
		LogEvents                   []logEvent
	}
	if err := json.Unmarshal(body, &in); err != nil {
		l.t.Errorf("body of %s: %v", operation, err)
	}
	status, answer := http.StatusOK, "{}"
	switch {
	case in.LogGroupName != "audit" || !l.group:
		status, answer = 400, apiError("ResourceNotFoundException", "The specified log group does not exist.")
	case operation == "CreateLogStream" && l.stream:
		status, answer = 400, apiError("ResourceAlreadyExistsException", "The specified log stream already exists")
	case operation == "CreateLogStream":
		l.stream = true
	case !l.stream || in.LogStreamName != "kong":
		status, answer = 400, apiError("ResourceNotFoundException", "The specified log stream does not exist.")
	default:
		status, answer = l.put(in.LogEvents)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

func (l *logs) put(events []logEvent) (int, string) {
	size := 0
	for i, e := range events {
		size += len(e.Message) + 26
		switch {
		case i > 0 && e.Timestamp < events[i-1].Timestamp:
			return 400, apiError("InvalidParameterException", "Log events in a single PutLogEvents request must be in chronological order.")
		case len(e.Message) == 0 || len(e.Message) > 1<<20:
			return 400, apiError("InvalidParameterException", "message length")
		}
	}
	l.calls = append(l.calls, call{len(events), size})
	if size > 1_048_576 || len(events) > 10_000 || len(events) == 0 {
		return 400, apiError("InvalidParameterException", "Upload too large")
	}
	var first, last int64 // of the valid ones
	old, expired, young := 0, 0, len(events)
	for i, e := range events {
		at := time.UnixMilli(e.Timestamp)
		switch {
		case at.Before(l.now.Add(-14 * 24 * time.Hour)):
			old = i + 1
		case l.retention > 0 && at.Before(l.now.Add(-l.retention)):
			expired = i + 1
		case at.After(l.now.Add(2 * time.Hour)):
			young = min(young, i)
		default:
			if first == 0 {
				first = e.Timestamp
			}
			last = e.Timestamp
		}
	}
	if last-first > (24 * time.Hour).Milliseconds() {
		return 400, apiError("InvalidParameterException", "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	l.kept = append(l.kept, events[max(old, expired):young]...)
	info := map[string]int{}
	if old > 0 {
		info["tooOldLogEventEndIndex"] = old
	}
	if expired > 0 {
		info["expiredLogEventEndIndex"] = expired
	}
	if young < len(events) {
		info["tooNewLogEventStartIndex"] = young
	}
	if len(info) == 0 {
		return 200, `{"nextSequenceToken":"1"}`
	}
	answer, _ := json.Marshal(map[string]any{"rejectedLogEventsInfo": info})
	return 200, string(answer)
}

func apiError(code, message string) string {
	return fmt.Sprintf(`{"__type":"com.amazonaws.logs#%s","message":%q}`, code, message)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// start returns the stand-in and a sink that speaks to it.
func start(t *testing.T, change func(*cloudwatch.Options)) (*logs, *cloudwatch.Destination) {
	t.Helper()
	l := &logs{t: t, now: noon, group: true, stream: true, count: map[string]int{}}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	o := cloudwatch.Options{
		Config: aws.Config{
			Region:       "eu-central-1",
			Credentials:  credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", ""),
			BaseEndpoint: aws.String(server.URL),
		},
		Group:  "audit",
		Stream: "kong",
		Encode: func(e *audit.Entry) (string, []byte) {
			return e.ID, fmt.Appendf(nil, `{"UID":%q,"pad":%q}`, e.ID, e.Payload)
		},
		Now: func() time.Time { return noon },
	}
	if change != nil {
		change(&o)
	}
	s, err := cloudwatch.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l, s
}

// uids counts what the stand-in keeps, by the UID inside the events.
func (l *logs) uids() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]int{}
	for _, e := range l.kept {
		var event struct{ UID string }
		if err := json.Unmarshal([]byte(e.Message), &event); err != nil {
			l.t.Errorf("kept event: %v", err)
		}
		counts[event.UID]++
	}
	return counts
}

// entries makes n entries, one each step, that end at noon.
func entries(n int, step time.Duration, payload string) []audit.Entry {
	list := make([]audit.Entry, n)
	for i := range list {
		list[i] = audit.Entry{ID: fmt.Sprintf("id%05d", i), Timestamp: noon.Add(-step * time.Duration(n-1-i)).Unix(), Payload: payload}
	}
	return list
}
