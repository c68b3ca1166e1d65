package cloudwatch_test

import (
	"bytes"
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
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
)

// logs is the emulated CloudWatch Logs, before which a test can stand.
type logs struct {
	*cloudwatchtest.Server

	mu    sync.Mutex
	count map[string]int // calls by operation
	// fault, if set, may answer the nth call (from 0) of an operation instead.
	fault func(operation string, n int, body string) (status int, answer string)
}

func (l *logs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	body, _ := io.ReadAll(r.Body)
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "Logs_20140328.")
	n := l.count[operation]
	l.count[operation]++
	status, answer := 0, ""
	if l.fault != nil {
		status, answer = l.fault(operation, n, string(body))
	}
	l.mu.Unlock()
	if status == 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
		l.Server.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

func apiError(code, message string) string {
	return fmt.Sprintf(`{"__type":"com.amazonaws.logs#%s","message":%q}`, code, message)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// start returns the emulated service and a destination that speaks to it.
func start(t *testing.T, change func(*cloudwatch.Options)) (*logs, *cloudwatch.Destination) {
	t.Helper()
	l := &logs{
		Server: cloudwatchtest.New(cloudwatchtest.Options{Group: "audit", Streams: []string{"kong"}, Now: func() time.Time { return noon }}),
		count:  map[string]int{},
	}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	o := cloudwatch.Options{
		Config: aws.Config{
			Region:       cloudwatchtest.Region,
			Credentials:  credentials.NewStaticCredentialsProvider(cloudwatchtest.AccessKeyID, cloudwatchtest.SecretAccessKey, ""),
			BaseEndpoint: aws.String(server.URL),
		},
		Group:  "audit",
		Stream: "kong",
		Encode: func(dst []byte, e *audit.Entry) []byte {
			return fmt.Appendf(dst, `{"UID":%q,"pad":%q}`, e.ID, e.Payload)
		},
		Now: func() time.Time { return noon },
	}
	if change != nil {
		change(&o)
	}
	return l, cloudwatch.New(o)
}

// uids counts what the service keeps, by the UID inside the events.
func (l *logs) uids() map[string]int {
	counts := map[string]int{}
	for _, e := range l.Events() {
		counts[e.UID]++
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
